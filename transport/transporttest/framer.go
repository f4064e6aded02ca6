package transporttest

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// LengthFramer is a Framer for tests: a message is two marks, a length and that
// many bytes. It tells a bad message (marks that are wrong: the byte is
// dropped) from one that is too large.
//
// With a Silence, a pause inside a message drops what came of it.
type LengthFramer struct {
	Limit   int           // the largest message, header included; 0: 1 MiB
	Silence time.Duration // Idle's answer
}

var _ transport.Framer = (*LengthFramer)(nil)

const (
	mark       = 0xA5
	headerSize = 6
)

// Frame puts msg behind a LengthFramer's header. What Read then returns is the
// whole frame.
func Frame(msg []byte) []byte {
	frame := make([]byte, headerSize, headerSize+len(msg))
	frame[0], frame[1] = mark, mark
	binary.BigEndian.PutUint32(frame[2:], uint32(len(msg)))
	return append(frame, msg...)
}

// Split implements transport.Framer.
func (f *LengthFramer) Split(buf []byte, idle bool) (int, []byte, error) {
	for i := range min(len(buf), 2) {
		if buf[i] != mark {
			return i + 1, nil, fmt.Errorf("%w: no mark", transport.ErrFrame)
		}
	}
	size := uint64(headerSize)
	if len(buf) >= headerSize {
		size += uint64(binary.BigEndian.Uint32(buf[2:]))
	}
	switch {
	case size > uint64(f.Max()):
		return headerSize, nil, fmt.Errorf("%w: %d bytes, at most %d", transport.ErrTooLarge, size, f.Max())
	case len(buf) >= headerSize && uint64(len(buf)) >= size:
		return int(size), buf[:size], nil
	case idle:
		return len(buf), nil, fmt.Errorf("%w: a pause in the middle", transport.ErrFrame)
	}
	return 0, nil, nil
}

// Idle implements transport.Framer.
func (f *LengthFramer) Idle() time.Duration { return f.Silence }

// Max implements transport.Framer.
func (f *LengthFramer) Max() int {
	if f.Limit <= 0 {
		return 1 << 20
	}
	return f.Limit
}

// SilenceFramer is a Framer for tests: what lies between two silences is a
// message, even when its Idle is short.
type SilenceFramer struct {
	Limit   int           // the largest message; 0: 1 MiB
	Silence time.Duration // what ends a message; > 0
}

var _ transport.Framer = (*SilenceFramer)(nil)

// Split implements transport.Framer.
func (f *SilenceFramer) Split(buf []byte, idle bool) (int, []byte, error) {
	if !idle {
		return 0, nil, nil
	}
	return len(buf), buf, nil
}

// Idle implements transport.Framer.
func (f *SilenceFramer) Idle() time.Duration { return f.Silence }

// Max implements transport.Framer.
func (f *SilenceFramer) Max() int {
	if f.Limit <= 0 {
		return 1 << 20
	}
	return f.Limit
}
