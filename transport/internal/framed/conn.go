// Package framed makes a transport.Conn, which carries messages, of a Stream,
// which carries bytes. It is what the transports on byte streams have in
// common: finding messages with the driver's Framer, deadlines, silence on the
// line, classes of errors. What differs between them is their Stream.
package framed

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// Stream is an open line that carries bytes. One goroutine may be in Fill
// while another is in Write; the other methods may be called by anyone at any
// time. Its errors may be of any kind, but a deadline that has passed must be
// os.ErrDeadlineExceeded, and the end of the stream io.EOF; one of class
// transport.ErrLost is handed on as it is.
type Stream interface {
	// Fill reads once, into in.Space(), and returns how many bytes it put
	// there. With wait it blocks until there are some, the read deadline or
	// Close; while it blocks it has Released in. Without wait it returns 0 at
	// once when there are none.
	Fill(in *Buffer, wait bool) (int, error)

	// Write sends all of p, or fails.
	Write(p []byte) (int, error)

	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error

	// Close unblocks Fill and Write. It is called once.
	Close() error
}

// Conn implements transport.Conn on a Stream. It starts no goroutine.
//
// A message that has already arrived is returned whatever the read deadline;
// the deadline bounds the waiting. What it buffers is bounded by four times the
// Framer's Max, or what one read of the Pool may bring if that is more.
type Conn struct {
	stream Stream
	framer transport.Framer
	info   transport.Info
	closed atomic.Bool

	// The reader's.
	in      Buffer
	arrived time.Time // when bytes came last; kept only for a Framer with an Idle
	lost    error     // why no more bytes will come

	// The writer's.
	broken error // the first failure of Write: the peer may have half a message

	// mu guards until when the reader waits.
	mu       sync.Mutex
	deadline time.Time // the caller's
	silence  time.Time // when the Framer is to be told that the line is idle
	armed    time.Time // the deadline that the Stream has now
	waiting  bool
	looked   bool // for what had come by the caller's deadline
}

var _ transport.Conn = (*Conn)(nil)

// New takes over s and closes it in Close. The Pool may be shared by any
// number of Conns, f may not.
func New(s Stream, f transport.Framer, p *Pool, info transport.Info) *Conn {
	return &Conn{stream: s, framer: f, info: info, in: Buffer{pool: p}}
}

// Info implements transport.Conn.
func (c *Conn) Info() transport.Info { return c.info }

// Read implements transport.Conn. When the peer is gone it first returns the
// messages that had arrived.
func (c *Conn) Read() ([]byte, error) {
	silent := c.lost != nil
	for !c.closed.Load() {
		msg, progress, err := c.split(silent)
		switch {
		case err != nil:
			return nil, c.fail("read", err)
		case msg != nil:
			return msg, nil
		case progress:
			continue
		case c.lost != nil:
			return nil, c.fail("read", c.lost)
		}
		if silent, err = c.await(silent); err != nil {
			return nil, c.fail("read", err)
		}
	}
	return nil, c.fail("read", net.ErrClosed)
}

// split asks the Framer once. A Framer that breaks its contract costs bytes,
// never a panic or an endless loop.
func (c *Conn) split(silent bool) (msg []byte, progress bool, err error) {
	buf := c.in.bytes()
	if len(buf) == 0 {
		return nil, false, nil
	}
	n, msg, err := c.framer.Split(buf, silent && c.framer.Idle() > 0)
	n = min(max(n, 0), len(buf))
	switch {
	case err != nil:
		n = max(n, 1)
	case msg != nil && n < max(len(msg), 1):
		n, err = max(n, 1), fmt.Errorf("%w: the framer took less than the message", transport.ErrFrame)
	case msg != nil && len(msg) > c.framer.Max():
		err = fmt.Errorf("%w: %d bytes, at most %d", transport.ErrTooLarge, len(msg), c.framer.Max())
	case msg == nil && n == 0 && len(buf) >= c.framer.Max():
		n = len(buf)
		err = fmt.Errorf("%w: no end within %d bytes", transport.ErrTooLarge, c.framer.Max())
	}
	c.in.consume(n)
	if err != nil {
		return nil, true, err
	}
	if msg != nil {
		msg = c.in.keep(msg)
	}
	return msg[:len(msg):len(msg)], n > 0, nil
}

// await reads once. It returns silent when the Framer's Idle has passed
// instead; told says that the Framer knows of this silence already.
func (c *Conn) await(told bool) (silent bool, err error) {
	idle := c.framer.Idle()
	var silence time.Time
	if idle > 0 && !told && c.in.size() > 0 {
		silence = c.arrived.Add(idle)
	}
	for {
		c.arm(silence)
		n, err := c.stream.Fill(&c.in, true)
		c.disarm()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			passed := c.passed()
			switch passed {
			case nothing:
				continue
			case callersDeadline:
				return false, os.ErrDeadlineExceeded
			}
			// Bytes may have come while nobody was reading: an answer is in time even
			// if this process was too busy to look.
			if n, err = c.fillNow(); n == 0 && err == nil {
				if passed == framersSilence {
					return true, nil
				}
				return false, os.ErrDeadlineExceeded
			}
		}
		if err != nil {
			c.lost = reason(err)
			return true, nil
		}
		c.in.Extend(n)
		if idle > 0 {
			c.arrived = time.Now()
		}
		return false, nil
	}
}

// fillNow reads what is there without waiting for more.
func (c *Conn) fillNow() (int, error) {
	c.mu.Lock()
	err := c.setArmed(time.Time{})
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.stream.Fill(&c.in, false)
}

// discardLimit ends a Discard that a peer outruns. It is more than a kernel
// holds for a connection.
const discardLimit = 16 << 20

// Discard implements transport.Conn. It reports a lost connection at once.
func (c *Conn) Discard() error {
	c.in.consume(c.in.size())
	defer c.in.Release()
	for dropped := 0; c.lost == nil && dropped < discardLimit; {
		n, err := c.fillNow()
		if err != nil {
			c.lost = reason(err)
			break
		}
		if n == 0 {
			break
		}
		dropped += n
	}
	switch {
	case c.closed.Load():
		return c.fail("discard", net.ErrClosed)
	case c.lost != nil:
		return c.fail("discard", c.lost)
	}
	return nil
}

// Write implements transport.Conn. After a failure it fails for ever: what
// followed half a message would be read as its other half.
func (c *Conn) Write(msg []byte) error {
	if c.broken == nil && !c.closed.Load() {
		_, err := c.stream.Write(msg)
		if err == nil {
			return nil
		}
		c.broken = reason(err)
	}
	if c.closed.Load() {
		return c.fail("write", net.ErrClosed)
	}
	return c.fail("write", c.broken)
}

// SetWriteDeadline implements transport.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.deadlineSet(c.stream.SetWriteDeadline(t))
}

// Close implements transport.Conn.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	if err := c.stream.Close(); err != nil {
		return c.fail("close", err)
	}
	return nil
}

// fail says where it happened.
func (c *Conn) fail(op string, err error) error {
	return fmt.Errorf("%s %s: %s: %w", c.info.Transport, c.info.Remote, op, err)
}

func (c *Conn) deadlineSet(err error) error {
	switch {
	case c.closed.Load():
		return c.fail("set deadline", net.ErrClosed)
	case err != nil:
		return c.fail("set deadline", reason(err))
	}
	return nil
}

// reason translates what a Stream answered into a class of transport's. That
// we closed it ourselves is the caller's to see first.
func reason(err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, transport.ErrLost):
		return err // the Stream knows it better
	case errors.Is(err, io.EOF):
		return transport.Lost(errors.New("the other side closed the connection"))
	case errors.As(err, &errno):
		return transport.Lost(errno) // without the addresses, which fail adds
	}
	return transport.Lost(err)
}
