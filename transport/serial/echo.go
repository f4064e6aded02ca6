package serial

import (
	"bytes"
	"sync"
)

// echo takes out what comes back of what was sent. One goroutine may be in sent
// while another is in heard.
//
// It goes by the number of bytes, also where they differ: half of our own
// request must never be taken for the answer to it. A byte that the line adds or
// swallows therefore spoils the next message too, whose checksum tells, and then
// the count is right again.
type echo struct {
	mu      sync.Mutex
	waiting []byte // sent, and not back yet
	bad     func() // called when an echo is wrong or missing
}

// longestEcho is how much may be on its way back, in bytes. What an adapter and
// the kernel hold is far less, so that more means that nothing comes back.
const longestEcho = 64 << 10

// sent notes p. It is called before p goes out, as bytes may be back before
// Write has returned.
func (e *echo) sent(p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting)+len(p) > longestEcho {
		e.bad()
		e.waiting = e.waiting[:0]
	}
	e.waiting = append(e.waiting, p...)
}

// heard returns how many bytes of p, from its front, are echo.
func (e *echo) heard(p []byte) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := min(len(p), len(e.waiting))
	if !bytes.Equal(p[:n], e.waiting[:n]) {
		e.bad()
	}
	e.waiting = e.waiting[:copy(e.waiting, e.waiting[n:])]
	return n
}
