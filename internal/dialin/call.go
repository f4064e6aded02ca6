package dialin

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// call is a connection that the device has made.
type call struct {
	transport.Conn
	dialer   *Dialer
	framer   *framer
	replaced atomic.Bool
}

var errAgain = errors.New("the device has called again")

// replace ends a Conn that may be in use. To its user the line is lost, and not
// closed by us.
func (c *call) replace() {
	c.replaced.Store(true)
	_ = c.Conn.Close()
}

func (c *call) translate(err error) error {
	if err != nil && c.replaced.Load() && errors.Is(err, net.ErrClosed) {
		return transport.Lost(errAgain)
	}
	return err
}

// Read implements transport.Conn.
func (c *call) Read() ([]byte, error) {
	msg, err := c.Conn.Read()
	return msg, c.translate(err)
}

// Write implements transport.Conn.
func (c *call) Write(msg []byte) error { return c.translate(c.Conn.Write(msg)) }

// Discard implements transport.Conn.
func (c *call) Discard() error { return c.translate(c.Conn.Discard()) }

// SetReadDeadline implements transport.Conn.
func (c *call) SetReadDeadline(t time.Time) error { return c.translate(c.Conn.SetReadDeadline(t)) }

// SetWriteDeadline implements transport.Conn.
func (c *call) SetWriteDeadline(t time.Time) error { return c.translate(c.Conn.SetWriteDeadline(t)) }

// Close implements transport.Conn.
func (c *call) Close() error {
	c.dialer.release(c)
	c.replaced.Store(false) // from now on it is we who have closed it
	return c.Conn.Close()
}

// framer stands for the one that Dial will bring. A Conn asks it in Read and
// Discard only, and nobody calls these before Dial has returned.
type framer struct{ transport.Framer }

// framers remembers the last framer made. Calls are taken one after the other,
// so that is the one of the Conn that Accept returns.
type framers struct{ last *framer }

func (f *framers) make() transport.Framer {
	f.last = new(framer)
	return f.last
}
