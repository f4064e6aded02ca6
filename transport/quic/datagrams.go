package quic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// datagrams are messages beside the streams (RFC 9221). quic-go queues 32 that
// go out and 128 that have come; those that come beyond are lost.
type datagrams struct {
	control *control
	info    transport.Info

	readBy, writeBy framed.Deadline
	closing         chan struct{}
	close           sync.Once

	// quic-go's queue can be waited for, but not given up. So a goroutine waits,
	// once it is needed.
	start sync.Once
	queue chan []byte
}

var _ transport.Conn = (*datagrams)(nil)

func newDatagrams(c *control, info transport.Info) *datagrams {
	info.MaxMessage = MaxDatagram
	info.Reliable, info.Ordered = false, false
	return &datagrams{control: c, info: info, closing: make(chan struct{}), queue: make(chan []byte)}
}

// Info implements transport.Conn.
func (d *datagrams) Info() transport.Info { return d.info }

// until ends a wait of quic-go's when done is closed.
type until struct {
	context.Context
	done <-chan struct{}
}

func (u until) Done() <-chan struct{} { return u.done }

func (u until) Err() error {
	select {
	case <-u.done:
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// Read implements transport.Conn.
func (d *datagrams) Read() ([]byte, error) {
	if err := d.over(); err != nil {
		return nil, d.fail("read", err)
	}
	msg, err := d.control.conn.ReceiveDatagram(until{context.Background(), d.readBy.Passed()})
	if err != nil {
		return nil, d.fail("read", d.why(err))
	}
	if err := d.tooLarge("read", msg); err != nil {
		return nil, err
	}
	return msg, nil
}

func (d *datagrams) tooLarge(op string, msg []byte) error {
	if len(msg) <= MaxDatagram {
		return nil
	}
	return d.fail(op, fmt.Errorf("%w: %d bytes, at most %d", transport.ErrTooLarge, len(msg), MaxDatagram))
}

// Write implements transport.Conn. It waits while the queue is full.
func (d *datagrams) Write(msg []byte) error {
	if err := d.gone(); err != nil {
		return d.fail("write", err)
	}
	if err := d.tooLarge("write", msg); err != nil {
		return err
	}
	d.start.Do(func() { go d.send() })
	passed := d.writeBy.Passed()
	select {
	case <-passed:
		return d.fail("write", os.ErrDeadlineExceeded)
	default:
	}
	select {
	case d.queue <- slices.Clone(msg):
		return nil
	case <-passed:
		return d.fail("write", os.ErrDeadlineExceeded)
	case <-d.closing:
		return d.fail("write", net.ErrClosed)
	case <-d.control.conn.Context().Done():
		return d.fail("write", d.gone())
	}
}

// send runs until the connection or the datagrams are closed.
func (d *datagrams) send() {
	for {
		select {
		case msg := <-d.queue:
			// An error is the connection's end, or a path that has become too small.
			_ = d.control.conn.SendDatagram(msg)
		case <-d.closing:
			return
		case <-d.control.conn.Context().Done():
			return
		}
	}
}

// Discard implements transport.Conn.
func (d *datagrams) Discard() error {
	var soon framed.Deadline
	soon.Set(time.Now().Add(glance))
	defer soon.Set(time.Time{})
	for {
		_, err := d.control.conn.ReceiveDatagram(until{context.Background(), soon.Passed()})
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && d.over() == nil:
			return nil
		default:
			return d.fail("discard", d.why(err))
		}
	}
}

// SetReadDeadline implements transport.Conn.
func (d *datagrams) SetReadDeadline(t time.Time) error { return d.set(&d.readBy, t) }

// SetWriteDeadline implements transport.Conn.
func (d *datagrams) SetWriteDeadline(t time.Time) error { return d.set(&d.writeBy, t) }

func (d *datagrams) set(deadline *framed.Deadline, t time.Time) error {
	if err := d.over(); err != nil {
		return d.fail("set deadline", err)
	}
	deadline.Set(t)
	return nil
}

// Close implements transport.Conn. It does nothing to the connection.
func (d *datagrams) Close() error {
	d.close.Do(func() {
		close(d.closing)
		d.readBy.Set(past())
		d.writeBy.Set(time.Time{})
	})
	return nil
}

// over says whether we have closed the datagrams or the connection.
func (d *datagrams) over() error {
	select {
	case <-d.closing:
		return net.ErrClosed
	case <-d.control.closing:
		return net.ErrClosed
	default:
		return nil
	}
}

// gone says also whether the connection has ended otherwise.
func (d *datagrams) gone() error {
	return d.why(context.Cause(d.control.conn.Context()))
}

func (d *datagrams) why(err error) error {
	if err := d.over(); err != nil {
		return err
	}
	return translate(err)
}

func (d *datagrams) fail(op string, err error) error {
	return fmt.Errorf("quic %s: %s a datagram: %w", d.info.Remote, op, err)
}
