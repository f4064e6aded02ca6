package doctor

// Identities is a set of records, for tests.
type Identities struct{ set identities }

// Add a record.
func (s *Identities) Add(device string, seq uint64, part uint32) {
	s.set.add(identityOf("gw", 1, device, seq, part, nil))
}

// Has tells whether it was added.
func (s *Identities) Has(device string, seq uint64, part uint32) bool {
	return s.set.has(identityOf("gw", 1, device, seq, part, nil))
}
