package admin

import (
	"net/http"
	"time"
)

// SetTimeouts is for tests that don't want to wait for the real ones.
func (s *Server) SetTimeouts(read, write time.Duration) {
	s.server.ReadTimeout, s.server.WriteTimeout = read, write
}

// Handler answers without a listener.
func (s *Server) Handler() http.Handler { return s.server.Handler }
