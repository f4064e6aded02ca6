package mcp

// Buffered is how many bytes wait to be written, PUBLISH apart.
func (s *Session) Buffered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving + len(s.control)
}
