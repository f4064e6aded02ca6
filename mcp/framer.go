package mcp

import (
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// DefaultFrameTimeout is how long the rest of a frame may take to come.
const DefaultFrameTimeout = 10 * time.Second

// ErrFrameTimeout marks a frame that was begun and not completed in time. It is
// of class transport.ErrFrame.
var ErrFrameTimeout = fmt.Errorf("%w: it was begun and not completed in time", transport.ErrFrame)

// StreamFramer finds frames where bytes can't be lost or damaged unnoticed: on
// TCP, TLS and QUIC streams. There a frame that is wrong means a peer that is
// wrong, so the first error is final: the Session answers ERROR and closes. The
// checksum is left to ParseFrame.
//
// A frame that was begun must go on: its sender has a time for all of it,
// however slowly the bytes trickle in. The time in which nobody reads does not
// count, and what has arrived meanwhile is taken.
//
// It is a transport.Framer for one Conn.
type StreamFramer struct {
	maxPayload int
	timeout    time.Duration
	stranger   bool      // no frame has come yet, and the first is a HELLO
	began      time.Time // when the frame whose end is missing was seen first; zero: there is none
	seen       time.Time // when it was seen last
}

// maxHello bounds the first frame of a stranger: a token and MaxChannels names.
// What he may have us keep must not be what a peer may that we know.
const maxHello = 128 << 10

// NewStreamFramer takes the largest payload accepted, in bytes, and the time
// that a frame may take from its first byte to its last; 0 means DefaultPayload
// and DefaultFrameTimeout.
func NewStreamFramer(maxPayload int, timeout time.Duration) *StreamFramer {
	if maxPayload <= 0 {
		maxPayload = DefaultPayload
	}
	if timeout <= 0 {
		timeout = DefaultFrameTimeout
	}
	return &StreamFramer{maxPayload: min(max(maxPayload, MaxPayloadV1), MaxPayloadV2), timeout: timeout}
}

// ExpectHello bounds the first frame to what a HELLO takes. It returns f.
func (f *StreamFramer) ExpectHello() *StreamFramer {
	f.stranger = true
	return f
}

// Split implements transport.Framer.
func (f *StreamFramer) Split(buf []byte, idle bool) (int, []byte, error) {
	limit := f.maxPayload
	if f.stranger {
		limit = min(limit, maxHello)
	}
	total, err := frameSize(buf, limit)
	switch {
	case err != nil:
		return len(buf), nil, err
	case total == 0 || len(buf) < total:
		return f.unfinished(buf, idle)
	}
	f.began, f.stranger = time.Time{}, false
	return total, buf[:total:total], nil
}

// unfinished asks for more bytes. A frame ends with silence, and when it has
// taken twice its time though bytes came without a pause.
func (f *StreamFramer) unfinished(buf []byte, idle bool) (int, []byte, error) {
	now := time.Now()
	if f.began.IsZero() || !idle && now.Sub(f.seen) > f.timeout+time.Second { // nobody has read since: else it would have been idle
		f.began = now
	}
	f.seen = now
	spent := now.Sub(f.began)
	if idle && spent >= f.timeout-leastSilence || spent >= 2*f.timeout {
		return len(buf), nil, ErrFrameTimeout
	}
	return 0, nil, nil
}

// leastSilence is the shortest that Idle tells: none would mean never.
const leastSilence = 10 * time.Millisecond

// Idle implements transport.Framer: it is what is left of the time for the
// frame that was begun.
func (f *StreamFramer) Idle() time.Duration {
	if f.began.IsZero() {
		return f.timeout
	}
	return max(f.timeout-time.Since(f.began), leastSilence)
}

// Max implements transport.Framer.
func (f *StreamFramer) Max() int { return f.maxPayload + maxOverhead }
