package mcp

// Early is how much waits for its turn in the session.
func (s *Session) Early() (frames, records, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ahead, s.waiting.records, s.waiting.bytes
}

// Abandon ends the session as a crash would: the peer hears nothing of it.
func (s *Session) Abandon() { s.finishWith(ending{}) }
