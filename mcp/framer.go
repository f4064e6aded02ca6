package mcp

import (
	"time"
)

// StreamFramer finds frames where bytes can't be lost or damaged unnoticed: on
// TCP, TLS and QUIC streams. There a frame that is wrong means a peer that is
// wrong, so the first error is final: the Session answers ERROR and closes. The
// checksum is left to ParseFrame.
//
// It is a transport.Framer; one serves any number of Conns.
type StreamFramer struct{ maxPayload int }

// NewStreamFramer takes the largest payload accepted, in bytes; 0 means
// DefaultPayload.
func NewStreamFramer(maxPayload int) *StreamFramer {
	if maxPayload <= 0 {
		maxPayload = DefaultPayload
	}
	return &StreamFramer{maxPayload: min(max(maxPayload, MaxPayloadV1), MaxPayloadV2)}
}

// Split implements transport.Framer.
func (f *StreamFramer) Split(buf []byte, _ bool) (int, []byte, error) {
	total, err := frameSize(buf, f.maxPayload)
	switch {
	case err != nil:
		return len(buf), nil, err
	case total == 0 || len(buf) < total:
		return 0, nil, nil
	}
	return total, buf[:total:total], nil
}

// Idle implements transport.Framer: a stream may pause anywhere.
func (f *StreamFramer) Idle() time.Duration { return 0 }

// Max implements transport.Framer.
func (f *StreamFramer) Max() int { return f.maxPayload + maxOverhead }
