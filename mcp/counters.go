package mcp

import (
	"errors"
	"sync/atomic"
)

// Counters of one or more Sessions; they only rise. Any field may be read at
// any time.
type Counters struct {
	BadFrames atomic.Uint64 // that came from peers on links that do not resynchronise
	Publishes atomic.Uint64 // PUBLISH frames taken
	Records   atomic.Uint64 // in them, without repeats
	Repeats   atomic.Uint64 // records that were there already
	SetBacks  atomic.Uint64 // channels whose sender published again what it had just been told is safe
	Holes     atomic.Uint64 // PUBLISH frames that came although something before them is missing

	// Where datagrams are the messages.
	Foreign atomic.Uint64 // datagrams without the session's cookie
	Lost    atomic.Uint64 // best-effort records that never came

	// Sessions that ended, and requests that were refused, at a limit.
	HelloTimeouts    atomic.Uint64
	FrameTimeouts    atomic.Uint64
	HeartbeatsMissed atomic.Uint64
	WindowExceeded   atomic.Uint64
	BufferExceeded   atomic.Uint64 // peers that do not read what is meant for them
	RequestsRefused  atomic.Uint64
}

// ended counts a session that ended at a limit.
func (c *Counters) ended(err error) {
	var e *Error
	switch {
	case errors.Is(err, ErrFrameTimeout):
		c.FrameTimeouts.Add(1)
	case !errors.As(err, &e) || e.Remote:
	case e.Code == CodeHelloTimeout:
		c.HelloTimeouts.Add(1)
	case e.Code == CodeHeartbeatMissed:
		c.HeartbeatsMissed.Add(1)
	case e.Code == CodeWindowExceeded:
		c.WindowExceeded.Add(1)
	}
}
