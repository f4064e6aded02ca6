package udp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// conn implements transport.Conn: its messages arrive in a mailbox and leave by
// a carrier.
type conn struct {
	in      *mailbox
	carrier carrier
	info    transport.Info
	writing framed.Deadline
	closed  atomic.Bool

	message *packet // the reader's: what Read has returned
	broken  error   // the writer's: the first failure
}

var _ transport.Conn = (*conn)(nil)

// carrier brings messages to the peer. One goroutine may send; the other
// methods may be called by anyone at any time.
type carrier interface {
	// begin makes the handshake, if there is one and it has not begun; it does
	// not wait for it.
	begin()
	// shakenHands waits for the handshake, at most to the deadline.
	shakenHands(deadline *framed.Deadline) error
	// send sends one message, after the handshake.
	send(msg []byte) error
	// names are those in the certificate that the peer has proven to hold.
	names() []string
	// close is called once. It ends the mailbox's supply.
	close()
}

// Info implements transport.Conn.
func (c *conn) Info() transport.Info {
	info := c.info
	info.Names = c.carrier.names()
	return info
}

// Read implements transport.Conn.
func (c *conn) Read() ([]byte, error) {
	c.giveBack()
	if c.closed.Load() {
		return nil, c.fail("read", net.ErrClosed)
	}
	c.carrier.begin()
	p, err := c.in.take()
	switch {
	case err != nil:
		return nil, c.fail("read", err)
	case p.cut:
		c.in.packets.takeBack(p)
		return nil, c.fail("read", fmt.Errorf("%w: a datagram of more than %d bytes: set max_datagram to the same at both ends",
			transport.ErrTooLarge, c.in.packets.size))
	}
	c.message = p
	return p.bytes(), nil
}

// Discard implements transport.Conn.
func (c *conn) Discard() error {
	c.giveBack()
	if err := c.in.discard(); err != nil {
		return c.fail("discard", err)
	}
	return nil
}

func (c *conn) giveBack() {
	if c.message != nil {
		c.in.packets.takeBack(c.message)
		c.message = nil
	}
}

// Write implements transport.Conn. After a failure it fails for ever, but for a
// message that was too large: that one has not been sent.
func (c *conn) Write(msg []byte) error {
	if len(msg) > c.info.MaxMessage {
		return c.fail("write", fmt.Errorf("%w: %d bytes, and a datagram takes %d: send less at a time, or set max_datagram higher",
			transport.ErrTooLarge, len(msg), c.info.MaxMessage))
	}
	if c.broken == nil && !c.closed.Load() {
		err := c.sendNow(msg)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, transport.ErrTooLarge):
			return c.fail("write", err)
		}
		c.broken = err
	}
	if c.closed.Load() {
		return c.fail("write", net.ErrClosed)
	}
	return c.fail("write", c.broken)
}

func (c *conn) sendNow(msg []byte) error {
	select {
	case <-c.writing.Passed():
		return os.ErrDeadlineExceeded
	default:
	}
	if lost := c.in.ending(); lost != nil {
		return lost
	}
	c.carrier.begin()
	if err := c.carrier.shakenHands(&c.writing); err != nil || msg == nil {
		return err
	}
	return c.carrier.send(msg)
}

// SetReadDeadline implements transport.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.in.deadline, t) }

// SetWriteDeadline implements transport.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writing, t) }

func (c *conn) setDeadline(d *framed.Deadline, t time.Time) error {
	if c.closed.Load() {
		return c.fail("set deadline", net.ErrClosed)
	}
	d.Set(t)
	return nil
}

// Close implements transport.Conn.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.in.end(net.ErrClosed)
	c.carrier.close()
	c.in.deadline.Set(time.Time{})
	c.writing.Set(time.Time{})
	return nil
}

// fail says where it happened.
func (c *conn) fail(op string, err error) error {
	return fmt.Errorf("udp %s: %s: %w", c.info.Remote, op, err)
}
