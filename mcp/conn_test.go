package mcp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
)

func TestMain(m *testing.M) {
	if heartbeat := os.Getenv(serverVariable); heartbeat != "" {
		if err := serveIdle(heartbeat); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// bubble is synctest.Test on one processor. On several, Go 1.26's race detector
// crashes now and then when timers of a bubble fire on two of them at once
// (golang/go#78156).
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}

// conn is a transport.Conn over a net.Pipe, so that time can be synctest's.
type conn struct {
	net.Conn
	framer    transport.Framer
	info      transport.Info
	buf       []byte
	have      int
	closeOnce sync.Once
}

var _ transport.Conn = (*conn)(nil)

// link makes two connected ends; info and framers as on the named transport.
func link(serial bool) (a, b *conn) {
	x, y := net.Pipe()
	return newConn(x, serial), newConn(y, serial)
}

func newConn(c net.Conn, serial bool) *conn {
	if serial {
		return &conn{
			Conn: c, framer: mcp.NewSerialFramer(0, 0),
			info: transport.Info{Transport: "serial", CharTime: time.Microsecond},
		}
	}
	return &conn{
		Conn: c, framer: mcp.NewStreamFramer(0, 0),
		info: transport.Info{Transport: "tcp", Reliable: true, Ordered: true},
	}
}

func (c *conn) Read() ([]byte, error) {
	for idle := false; ; {
		advance, msg, err := c.framer.Split(c.buf[:c.have], idle)
		if msg != nil {
			msg = append([]byte(nil), msg...)
		}
		c.have = copy(c.buf, c.buf[advance:c.have])
		if msg != nil || err != nil {
			return msg, err
		}
		if c.have == len(c.buf) {
			c.buf = append(c.buf, make([]byte, 1<<12)...)
		}
		n, err := c.Conn.Read(c.buf[c.have:])
		c.have += n
		idle = false
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		case errors.Is(err, io.EOF):
			return nil, transport.ErrLost
		default:
			return nil, net.ErrClosed
		}
	}
}

func (c *conn) Write(b []byte) error {
	_, err := c.Conn.Write(b)
	if errors.Is(err, io.ErrClosedPipe) {
		return transport.Lost(err)
	}
	return err
}

func (c *conn) Discard() error       { return nil }
func (c *conn) Info() transport.Info { return c.info }

func (c *conn) Close() (err error) {
	c.closeOnce.Do(func() { err = c.Conn.Close() })
	return err
}

// dialer hands the other end of each Conn it makes to accept.
type dialer struct {
	serial bool
	accept func(c *conn)
}

func (d dialer) Dial(context.Context, transport.Framer) (transport.Conn, error) {
	a, b := link(d.serial)
	d.accept(b)
	return a, nil
}

func (d dialer) Endpoint() string { return "memory" }
