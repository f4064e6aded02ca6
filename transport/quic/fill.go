package quic

import (
	"errors"
	"os"
	"time"

	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// readable is a stream that bytes come on.
type readable interface {
	Peek(p []byte) (int, error)
	Read(p []byte) (int, error)
	SetReadDeadline(t time.Time) error
}

// glance is how long a look at what is there may take: quic-go answers one whose
// time is over with nothing, whatever has arrived.
const glance = time.Millisecond

// fill is Fill of a framed.Stream. It borrows memory once there is a byte for it.
func fill(s readable, in *framed.Buffer, wait bool) (int, error) {
	if !wait {
		_ = s.SetReadDeadline(time.Now().Add(glance))
		defer func() { _ = s.SetReadDeadline(time.Time{}) }() // framed has none while it doesn't wait
	}
	in.Release()
	var first [1]byte
	_, err := s.Peek(first[:])
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		// Read also where Peek has seen the end: only then quic-go forgets the stream.
		var n int
		if n, err = s.Read(in.Space()); n > 0 {
			return n, nil // an error stays, and comes again
		}
		in.Release()
	}
	if !wait && errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	return 0, err
}
