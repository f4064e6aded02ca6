package mqtt

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"
)

// farewell is how long, once the upstream has been told to stop, a write may
// still block: a broker that stopped reading must not hold up the end.
const farewell = 500 * time.Millisecond

// conn is a connection as paho wants it. paho reads byte by byte and would make
// a system call for each, and it takes the lock, where there is one, to write a
// packet of several pieces as one.
type conn struct {
	net.Conn
	sync.Mutex
	in     *bufio.Reader
	forget func() bool
}

// dial opens a connection that ends, at the latest, shortly after ctx does.
func dial(ctx context.Context, address string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	forget := context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Now().Add(farewell)) })
	return &conn{Conn: c, in: bufio.NewReaderSize(c, 16<<10), forget: forget}, nil
}

func (c *conn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *conn) Close() error {
	c.forget()
	return c.Conn.Close()
}
