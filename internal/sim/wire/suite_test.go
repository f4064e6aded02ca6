package wire_test

import (
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestAConnOnALineKeepsTheContract(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Open: func(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) {
			l := fastLine(t)
			d := l.Dialer("master")
			far := &far{adapter: d}
			far.changed.L = &far.mu
			far.tap = l.Attach("far", far)
			c, err := d.Dial(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			return c, far
		},
		Absent: func(t *testing.T) transport.Dialer {
			d := fastLine(t).Dialer("master")
			d.Unplug()
			return d
		},
	})
}

// fastLine runs a line on which a megabyte takes a tenth of a second.
func fastLine(t *testing.T) *wire.Line {
	ctx, cancel := context.WithCancel(context.Background())
	l := wire.New(wire.Config{Baud: 110e6})
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return l
}

// far is a station in a test's hands. It reads what was said once the line is
// quiet, and its end is that of the line.
type far struct {
	tap     *wire.Tap
	adapter *wire.Dialer

	mu           sync.Mutex
	changed      sync.Cond
	heard, inbox []byte
	closed       bool
}

func (f *far) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
	f.changed.Broadcast()
}

func (f *far) Hear(b []byte) { f.change(func() { f.heard = append(f.heard, b...) }) }

func (f *far) Quiet(time.Time) {
	f.change(func() { f.inbox, f.heard = append(f.inbox, f.heard...), nil })
}

func (f *far) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.inbox) == 0 && !f.closed {
		f.changed.Wait()
	}
	if f.closed {
		return 0, io.EOF
	}
	n := copy(p, f.inbox)
	f.inbox = f.inbox[n:]
	return n, nil
}

func (f *far) Write(p []byte) (int, error) {
	said := false
	f.tap.SayAt(time.Now(), p, func(wire.Talk) { f.change(func() { said = true }) })
	f.mu.Lock()
	defer f.mu.Unlock()
	for !said && !f.closed {
		f.changed.Wait()
	}
	if f.closed {
		return 0, os.ErrClosed
	}
	return len(p), nil
}

func (f *far) Close() error {
	f.change(func() { f.closed = true })
	f.adapter.Unplug()
	return nil
}
