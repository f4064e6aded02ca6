package modbus_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// clock is the bubble's.
func clock() (time.Time, record.Clock) { return time.Now(), record.ClockSynced }

// sink keeps what polls deliver.
type sink struct {
	mu      sync.Mutex
	records []record.Record
}

var _ modbus.Sink = (*sink)(nil)

func (s *sink) Deliver(_ context.Context, r record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, r)
	return nil
}

// plant is a master and slaves on one line, in simulated time.
type plant struct {
	*testing.T
	line  *wire.Line
	talks []wire.Talk
	link  *modbus.Link
	conns []*lineConn
}

// onALine plays in a bubble: slaves with the given units hang on a line at
// 9600 baud, answer 5 ms after the request, and a link is open on it.
func onALine(t *testing.T, units []int, play func(p *plant, slaves map[int]*modbusslave.Slave)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &plant{T: t}
		p.line = wire.New(wire.Config{Baud: 9600, OnTalk: func(talk wire.Talk) { p.talks = append(p.talks, talk) }})
		slaves := make(map[int]*modbusslave.Slave)
		for _, unit := range units {
			slaves[unit] = modbusslave.New(modbusslave.Config{Unit: unit, Delay: 5 * time.Millisecond})
			slaves[unit].Set(modbus.Holding, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
			slaves[unit].Attach(p.line)
		}
		link, err := modbus.NewLink(p, modbus.LinkConfig{Framing: modbus.FramingRTU, LateReplyGuard: time.Second}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		p.link = link
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = p.line.Run(ctx) })
		if err := link.Open(ctx); err != nil {
			t.Fatal(err)
		}
		play(p, slaves)
		if err := link.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
	})
}

// ask does one transaction with a time-out of 300 ms.
func (p *plant) ask(unit int, r modbus.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(p.Context(), 300*time.Millisecond)
	defer cancel()
	return p.link.Do(ctx, unit, r)
}

// read is a request for holding registers.
func (p *plant) read(first, count int) modbus.Request {
	r, err := modbus.Read(modbus.Holding, first, count)
	if err != nil {
		p.Fatal(err)
	}
	return r
}

var _ transport.Dialer = (*plant)(nil)

// Dial is a program's connection to the line.
func (p *plant) Dial(_ context.Context, f transport.Framer) (transport.Conn, error) {
	c := &lineConn{line: p.line, framer: f, changed: make(chan struct{}, 1)}
	c.tap = p.line.Attach("master", c)
	p.conns = append(p.conns, c)
	return c, nil
}

func (p *plant) Endpoint() string { return "line" }

// lineConn is a transport.Conn on a wire.Line, without a device between.
type lineConn struct {
	line   *wire.Line
	tap    *wire.Tap
	framer transport.Framer

	mu       sync.Mutex
	buf      []byte
	heard    time.Time
	told     bool // of the silence after heard
	deadline time.Time
	closed   bool
	fail     error // of the next Write

	changed chan struct{}
}

var (
	_ transport.Conn = (*lineConn)(nil)
	_ wire.Station   = (*lineConn)(nil)
)

func (c *lineConn) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *lineConn) Hear(b []byte) {
	c.change(func() { c.buf, c.heard, c.told = append(c.buf, b...), time.Now(), false })
}

func (c *lineConn) Quiet(time.Time) {}

func (c *lineConn) Read() ([]byte, error) {
	for {
		c.mu.Lock()
		silence := c.heard.Add(c.framer.Idle())
		idle := c.framer.Idle() > 0 && !time.Now().Before(silence)
		var advance int
		var msg []byte
		var err error
		if len(c.buf) > 0 {
			advance, msg, err = c.framer.Split(c.buf, idle)
			msg = append([]byte(nil), msg...)
			c.buf = c.buf[advance:]
			c.told = idle
		}
		wake := c.deadline
		if len(c.buf) > 0 && !c.told && c.framer.Idle() > 0 && (wake.IsZero() || silence.Before(wake)) {
			wake = silence
		}
		switch {
		case err == nil && len(msg) == 0 && c.closed:
			err = net.ErrClosed
		case err == nil && len(msg) == 0 && advance == 0 && !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			err = os.ErrDeadlineExceeded
		}
		c.mu.Unlock()
		if err != nil || len(msg) > 0 {
			return msg, err
		}
		if advance > 0 {
			continue
		}
		timer := time.NewTimer(time.Hour)
		if !wake.IsZero() {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-c.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (c *lineConn) Write(msg []byte) error {
	c.mu.Lock()
	fail := c.fail
	c.mu.Unlock()
	if fail != nil {
		return fail
	}
	c.tap.Say(msg)
	<-time.After(time.Duration(len(msg)) * c.line.CharTime())
	return nil
}

func (c *lineConn) Discard() error { c.change(func() { c.buf = nil }); return nil }

func (c *lineConn) SetReadDeadline(t time.Time) error {
	c.change(func() { c.deadline = t })
	return nil
}
func (c *lineConn) SetWriteDeadline(time.Time) error { return nil }
func (c *lineConn) Close() error                     { c.change(func() { c.closed = true }); return nil }

func (c *lineConn) Info() transport.Info {
	return transport.Info{Transport: "serial", HalfDuplex: true, Ordered: true, CharTime: c.line.CharTime()}
}
