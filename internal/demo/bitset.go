package demo

import "math/bits"

// bitset is a set of small numbers.
type bitset struct {
	words []uint64
	count uint64
}

// add returns false when n was there already.
func (s *bitset) add(n uint64) bool {
	for uint64(len(s.words)) <= n/64 {
		s.words = append(s.words, 0)
	}
	if s.has(n) {
		return false
	}
	s.words[n/64] |= 1 << (n % 64)
	s.count++
	return true
}

func (s *bitset) has(n uint64) bool {
	return n/64 < uint64(len(s.words)) && s.words[n/64]&(1<<(n%64)) != 0
}

// common counts the numbers that are in both.
func (s *bitset) common(other *bitset) (n uint64) {
	for i := range min(len(s.words), len(other.words)) {
		n += uint64(bits.OnesCount64(s.words[i] & other.words[i]))
	}
	return n
}
