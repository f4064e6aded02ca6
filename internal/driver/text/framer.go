package text

import (
	"bytes"
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// framer finds lines: up to a delimiter, or up to a silence. A line that is too
// long is reported once, and all of it is dropped.
type framer struct {
	delimiter []byte        // nil: a silence ends a line
	idle      time.Duration // that silence; 0: a delimiter ends a line
	max       int
	whole     bool // a datagram's end ends a line too
	tooLong   bool // within a line that is being dropped
}

var _ transport.Framer = (*framer)(nil)

func newFramer(c *Config) *framer {
	if c.Idle > 0 {
		return &framer{idle: c.Idle, max: c.MaxLine}
	}
	return &framer{delimiter: []byte(c.Delimiter), max: c.MaxLine}
}

// Idle implements transport.Framer.
func (f *framer) Idle() time.Duration { return f.idle }

// Max implements transport.Framer: one more than Split ever leaves unconsumed.
func (f *framer) Max() int { return f.max + f.slack() + 1 }

// slack is how much the end of a line may add to it: its delimiter, or CR LF.
func (f *framer) slack() int { return max(2, len(f.delimiter)) }

// Split implements transport.Framer.
func (f *framer) Split(buf []byte, idle bool) (advance int, msg []byte, err error) {
	end, after := f.find(buf, idle)
	switch {
	case end >= 0 && f.tooLong:
		f.tooLong = false
		return after, nil, nil
	case end > f.max:
		return after, nil, f.tooLongError()
	case end >= 0:
		return after, buf[:end:end], nil
	case f.tooLong:
		return len(buf) - f.kept(buf), nil, nil
	case len(buf) > f.max+f.slack():
		f.tooLong = true
		return len(buf) - f.kept(buf), nil, f.tooLongError()
	}
	return 0, nil, nil
}

// find returns where the line ends and where the next one begins, or -1.
func (f *framer) find(buf []byte, idle bool) (end, after int) {
	if f.idle > 0 {
		if !idle {
			return -1, 0
		}
		return len(bytes.TrimRight(buf, "\r\n")), len(buf)
	}
	i := bytes.Index(buf, f.delimiter)
	if i < 0 {
		if f.whole && len(buf) > 0 {
			return len(buf), len(buf)
		}
		return -1, 0
	}
	end = i
	if len(f.delimiter) == 1 && f.delimiter[0] == '\n' && i > 0 && buf[i-1] == '\r' {
		end--
	}
	return end, i + len(f.delimiter)
}

// kept is how many bytes of a line that is dropped must stay for now: what may
// be the beginning of its delimiter, or one byte to be told of the silence by.
func (f *framer) kept(buf []byte) int {
	if f.idle > 0 {
		return min(len(buf), 1)
	}
	return min(len(buf), len(f.delimiter)-1)
}

func (f *framer) tooLongError() error {
	return fmt.Errorf("%w: a line of more than %d bytes", transport.ErrTooLarge, f.max)
}
