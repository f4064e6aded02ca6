package mcp

import (
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// DefaultFrameTimeout is how long the rest of a frame may take to come.
const DefaultFrameTimeout = 30 * time.Second

// ErrFrameTimeout marks a frame that was begun and not completed in time. It is
// of class transport.ErrFrame.
var ErrFrameTimeout = fmt.Errorf("%w: it was begun and not completed in time", transport.ErrFrame)

// StreamFramer finds frames where bytes can't be lost or damaged unnoticed: on
// TCP, TLS and QUIC streams. There a frame that is wrong means a peer that is
// wrong, so the first error is final: the Session answers ERROR and closes. The
// checksum is left to ParseFrame.
//
// A frame that was begun must go on: its sender has a time for all of it,
// however slowly the bytes trickle in. The time in which nobody reads counts
// as the sender's, but what has arrived meanwhile is still taken.
//
// It is a transport.Framer for one Conn.
type StreamFramer struct {
	maxPayload int
	timeout    time.Duration
	began      time.Time // when the frame whose end is missing was seen first; zero: there is none
}

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

// Split implements transport.Framer.
func (f *StreamFramer) Split(buf []byte, idle bool) (int, []byte, error) {
	total, err := frameSize(buf, f.maxPayload)
	switch {
	case err != nil:
		return len(buf), nil, err
	case total == 0 || len(buf) < total:
		return f.unfinished(buf, idle)
	}
	f.began = time.Time{}
	return total, buf[:total:total], nil
}

// unfinished asks for more bytes. Only silence ends a frame, so that one that
// has arrived while nobody read is taken.
func (f *StreamFramer) unfinished(buf []byte, idle bool) (int, []byte, error) {
	switch {
	case f.began.IsZero():
		f.began = time.Now()
	case idle && time.Since(f.began) >= f.timeout-leastSilence:
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
