package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// Dialer opens a place on a line as transport/serial opens a port, without a
// device between, so that it runs under testing/synctest: there it is exact to
// the nanosecond. Like a serial port it is open once at a time.
type Dialer struct {
	line *Line
	name string
	tap  *Tap

	mu     sync.Mutex
	conn   *Conn // the open one, nil for none
	absent bool
}

var (
	_ transport.Dialer = (*Dialer)(nil)
	_ Station          = (*Dialer)(nil)
)

var (
	errUnplugged = errors.New("the adapter is unplugged")
	errInUse     = errors.New("the port is in use")
)

// Dialer puts a station on the line that speaks through transport.Conns. Those
// that are open when Run ends are lost.
func (l *Line) Dialer(name string) *Dialer {
	d := &Dialer{line: l, name: name}
	d.tap = l.Attach(name, d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dialers = append(l.dialers, d)
	return d
}

// Dial implements transport.Dialer. While a Conn is open, another can't be.
func (d *Dialer) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Endpoint(), err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.absent {
		return nil, fmt.Errorf("%s: %w", d.Endpoint(), transport.Lost(errUnplugged))
	}
	if d.conn != nil {
		return nil, fmt.Errorf("%s: %w", d.Endpoint(), transport.Permanent(errInUse))
	}
	d.conn = &Conn{dialer: d, framer: f, most: max(4*f.Max(), 4096), gone: make(chan struct{})}
	d.conn.changed.L = &d.conn.mu
	return d.conn, nil
}

// Endpoint implements transport.Dialer.
func (d *Dialer) Endpoint() string { return "wire " + d.name }

// Unplug takes the adapter out of its socket: the open Conn is lost, and there
// is nothing to dial until Plug.
func (d *Dialer) Unplug() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.absent = true
	if d.conn != nil {
		d.conn.lose()
		d.conn = nil
	}
}

// Plug puts the adapter back.
func (d *Dialer) Plug() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.absent = false
}

// Hear implements Station. Nobody hears it while no Conn is open.
func (d *Dialer) Hear(b []byte) {
	if c := d.open(); c != nil {
		c.hear(b)
	}
}

// Quiet implements Station.
func (d *Dialer) Quiet(time.Time) {}

func (d *Dialer) open() *Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn
}

func (d *Dialer) closed(c *Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == c {
		d.conn = nil
	}
}

// Conn is a transport.Conn on a line. Its Write returns when the last character
// has left.
type Conn struct {
	dialer *Dialer
	framer transport.Framer
	most   int // bytes that wait to be read; what comes beyond is lost, as in a UART
	gone   chan struct{}

	mu                   sync.Mutex
	changed              sync.Cond
	buf                  []byte
	heard                time.Time // when buf grew last
	told                 bool      // the Framer knows of the silence since
	closing, lost        bool
	broken               error // a Write that failed: nobody knows what left
	readUntil, writtenBy limit
	silence              limit // when the Framer is to be told
}

var _ transport.Conn = (*Conn)(nil)

// limit is a time that wakes whoever waits on a condition.
type limit struct {
	at    time.Time
	timer *time.Timer
}

func (l *limit) passed() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }

// set moves a limit; c.mu is held.
func (c *Conn) set(l *limit, at time.Time) {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.at = at
	if !at.IsZero() && !c.closing {
		l.timer = time.AfterFunc(time.Until(at), c.wake)
	}
}

func (c *Conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed.Broadcast()
}

func (c *Conn) hear(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, b[:min(len(b), c.most-len(c.buf))]...)
	c.heard, c.told = time.Now(), false
	c.changed.Broadcast()
}

func (c *Conn) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = true
	close(c.gone)
	c.changed.Broadcast()
}

// Read implements transport.Conn.
func (c *Conn) Read() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.set(&c.silence, time.Time{})
	for {
		msg, progress, err := c.split()
		switch {
		case c.closing:
			return nil, c.failed("read", net.ErrClosed)
		case err != nil:
			return nil, c.failed("read", err)
		case msg != nil:
			return msg, nil
		case progress:
			continue
		case c.lost:
			return nil, c.failed("read", transport.Lost(errUnplugged))
		case c.readUntil.passed():
			return nil, c.failed("read", os.ErrDeadlineExceeded)
		}
		c.listen()
		c.changed.Wait()
	}
}

// split asks the Framer once.
func (c *Conn) split() (msg []byte, progress bool, err error) {
	if len(c.buf) == 0 || c.closing {
		return nil, false, nil
	}
	idle := c.framer.Idle()
	silent := idle > 0 && (c.lost || !time.Now().Before(c.heard.Add(idle)))
	c.told = silent
	n, msg, err := c.framer.Split(c.buf, silent)
	switch {
	case err != nil:
		n = max(n, 1)
	case msg != nil && len(msg) > c.framer.Max():
		err = fmt.Errorf("%w: %d bytes, at most %d", transport.ErrTooLarge, len(msg), c.framer.Max())
	case msg == nil && n == 0 && len(c.buf) >= c.framer.Max():
		n = len(c.buf)
		err = fmt.Errorf("%w: no end within %d bytes", transport.ErrTooLarge, c.framer.Max())
	}
	c.buf = c.buf[n:]
	return msg, n > 0, err
}

// listen has the reader woken when the Framer is to be told of a silence.
func (c *Conn) listen() {
	idle := c.framer.Idle()
	if idle <= 0 || len(c.buf) == 0 || c.told {
		c.set(&c.silence, time.Time{})
		return
	}
	c.set(&c.silence, c.heard.Add(idle))
}

// Write implements transport.Conn.
func (c *Conn) Write(msg []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.unfit()
	if err != nil || len(msg) == 0 {
		return c.failed("write", err)
	}
	left := false
	c.dialer.tap.SayAt(time.Now(), msg, func(Talk) {
		c.mu.Lock()
		defer c.mu.Unlock()
		left = true
		c.changed.Broadcast()
	})
	for !left && err == nil {
		c.changed.Wait()
		err = c.unfit()
	}
	if left {
		return nil
	}
	c.broken = err
	return c.failed("write", err)
}

// unfit is why nothing can be written.
func (c *Conn) unfit() error {
	switch {
	case c.closing:
		return net.ErrClosed
	case c.lost:
		return transport.Lost(errUnplugged)
	case c.broken != nil:
		return c.broken
	case c.writtenBy.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Discard implements transport.Conn.
func (c *Conn) Discard() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = c.buf[len(c.buf):]
	switch {
	case c.closing:
		return c.failed("discard", net.ErrClosed)
	case c.lost:
		return c.failed("discard", transport.Lost(errUnplugged))
	}
	return nil
}

// SetReadDeadline implements transport.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readUntil, t) }

// SetWriteDeadline implements transport.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writtenBy, t) }

func (c *Conn) setDeadline(l *limit, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return c.failed("set deadline", net.ErrClosed)
	}
	c.set(l, t)
	c.changed.Broadcast()
	return nil
}

// Info implements transport.Conn.
func (c *Conn) Info() transport.Info {
	return transport.Info{
		Transport: "serial", Remote: c.dialer.name, HalfDuplex: true, Ordered: true,
		CharTime: c.dialer.line.CharTime(), Lost: c.gone,
	}
}

// Close implements transport.Conn.
func (c *Conn) Close() error {
	c.dialer.closed(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	for _, l := range []*limit{&c.readUntil, &c.writtenBy, &c.silence} {
		c.set(l, time.Time{})
	}
	c.changed.Broadcast()
	return nil
}

func (c *Conn) failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s: %w", c.dialer.Endpoint(), doing, err)
}
