package tcp

import (
	"io"
	"net"
	"time"

	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// wire is the connection as crypto/tls sees it.
type wire struct {
	*net.TCPConn
	descriptor *framed.Descriptor
	in         *framed.Buffer
	patient    bool        // the handshake is under way: Read waits
	tail       secure.Tail // of what came while it was
	closing    error       // what Close brought
}

// errNothing says that the other side has sent nothing more so far. crypto/tls
// can go on after an error that calls itself temporary.
var errNothing net.Error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing has arrived" }
func (nothing) Timeout() bool   { return false }
func (nothing) Temporary() bool { return true }

// fill reads once from the kernel.
func (w *wire) fill(wait bool) (int, error) {
	n, err := w.descriptor.Fill(w.in, wait)
	w.in.Extend(n)
	return n, err
}

// Read implements net.Conn. After the handshake it never waits.
func (w *wire) Read(p []byte) (int, error) {
	n := w.in.Take(p)
	for n == 0 && w.patient {
		if _, err := w.fill(true); err != nil {
			return 0, err
		}
		n = w.in.Take(p)
	}
	if n == 0 {
		return 0, errNothing
	}
	if w.patient {
		w.tail.Add(p[:n])
	}
	return n, nil
}

// SetDeadline and SetWriteDeadline implement net.Conn: the tlsStream sets
// deadlines on the connection itself, and crypto/tls's own five seconds for
// close_notify are too long.

// SetDeadline does nothing.
func (*wire) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (*wire) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (*wire) SetWriteDeadline(time.Time) error { return nil }

// Close implements net.Conn and keeps its error.
func (w *wire) Close() error {
	w.closing = w.TCPConn.Close()
	return nil
}

// linger lets the peer read the alert that says why the handshake failed. To
// close while unread bytes are there resets the connection, and a reset may
// overtake the alert (RFC 1122, section 4.2.2.13).
func (w *wire) linger() {
	_ = w.TCPConn.SetDeadline(time.Now().Add(farewell))
	_ = w.CloseWrite()
	_, _ = io.CopyN(io.Discard, w.TCPConn, readSize)
}
