package transporttest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// Fate is what becomes of a message. The zero value lets it pass.
type Fate struct {
	Drop    bool          // it never arrives
	Cut     bool          // the connection is lost instead
	Corrupt bool          // a bit in its middle is flipped
	Delay   time.Duration // it arrives that much later; what comes behind it waits
}

// Faults decide over the messages of a Faulty Conn, counted from 0 in each
// direction; nil lets all pass. Read is called from within the Conn's Read,
// Write from within its Write. A func must not keep msg.
type Faults struct {
	Read  func(n int, msg []byte) Fate
	Write func(n int, msg []byte) Fate
}

// Faulty is a Conn on a bad line.
type Faulty struct {
	conn   transport.Conn
	faults Faults

	// The reader's.
	received int
	held     []byte    // a delayed message
	due      time.Time // when it arrives

	sent int // the writer's

	readExpiry, writeExpiry framed.Deadline

	mu   sync.Mutex
	over chan struct{} // closed by the first Cut or Close
	end  error         // what its Read and Write fail with then
}

var _ transport.Conn = (*Faulty)(nil)

// NewFaulty takes over c.
func NewFaulty(c transport.Conn, faults Faults) *Faulty {
	return &Faulty{conn: c, faults: faults, over: make(chan struct{})}
}

// Cut loses the connection. It may be called at any time.
func (f *Faulty) Cut() { _ = f.finish(transport.Lost(fmt.Errorf("cut by the test"))) }

// Close implements transport.Conn.
func (f *Faulty) Close() error {
	f.readExpiry.Set(time.Time{})
	f.writeExpiry.Set(time.Time{})
	return f.finish(net.ErrClosed)
}

func (f *Faulty) finish(end error) error {
	f.mu.Lock()
	if f.end == nil {
		close(f.over)
	}
	if f.end == nil || end == net.ErrClosed { //nolint:errorlint // it is this very value, from Close
		f.end = end
	}
	f.mu.Unlock()
	return f.conn.Close()
}

// failure is what a failed call of the Conn below means on this one.
func (f *Faulty) failure(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end != nil {
		return f.end
	}
	return err
}

// Read implements transport.Conn.
func (f *Faulty) Read() ([]byte, error) {
	for f.held == nil {
		msg, err := f.conn.Read()
		if err != nil {
			return nil, f.failure(err)
		}
		fate := decide(f.faults.Read, f.received, msg)
		f.received++
		if fate.Cut {
			f.Cut()
			continue
		}
		if !fate.Drop {
			f.held, f.due = damaged(bytes.Clone(msg), fate), time.Now().Add(fate.Delay)
		}
	}
	if err := f.waitUntil(f.due, &f.readExpiry); err != nil {
		return nil, err
	}
	msg := f.held
	f.held = nil
	return msg, nil
}

// Write implements transport.Conn.
func (f *Faulty) Write(msg []byte) error {
	fate := decide(f.faults.Write, f.sent, msg)
	f.sent++
	if fate.Cut {
		f.Cut()
	}
	if err := f.waitUntil(time.Now().Add(fate.Delay), &f.writeExpiry); err != nil {
		return err
	}
	if fate.Drop {
		return nil
	}
	if err := f.conn.Write(damaged(msg, fate)); err != nil {
		return f.failure(err)
	}
	return nil
}

func decide(by func(int, []byte) Fate, n int, msg []byte) Fate {
	if by == nil {
		return Fate{}
	}
	return by(n, msg)
}

// damaged is msg, or a copy with a flipped bit if that is its fate.
func damaged(msg []byte, fate Fate) []byte {
	if !fate.Corrupt || len(msg) == 0 {
		return msg
	}
	msg = bytes.Clone(msg)
	msg[len(msg)/2] ^= 1
	return msg
}

func (f *Faulty) waitUntil(due time.Time, expiry *framed.Deadline) error {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-f.over:
		return f.failure(nil)
	default:
	}
	select {
	case <-timer.C:
		return nil
	case <-expiry.Passed():
		return fmt.Errorf("faulty line: %w", os.ErrDeadlineExceeded)
	case <-f.over:
		return f.failure(nil)
	}
}

// Discard implements transport.Conn. A message that is delayed has not arrived
// and stays.
func (f *Faulty) Discard() error {
	if !time.Now().Before(f.due) {
		f.held = nil
	}
	if err := f.conn.Discard(); err != nil {
		return f.failure(err)
	}
	return nil
}

// SetReadDeadline implements transport.Conn.
func (f *Faulty) SetReadDeadline(t time.Time) error {
	f.readExpiry.Set(t)
	if err := f.conn.SetReadDeadline(t); err != nil {
		return f.failure(err)
	}
	return nil
}

// SetWriteDeadline implements transport.Conn.
func (f *Faulty) SetWriteDeadline(t time.Time) error {
	f.writeExpiry.Set(t)
	if err := f.conn.SetWriteDeadline(t); err != nil {
		return f.failure(err)
	}
	return nil
}

// Info implements transport.Conn.
func (f *Faulty) Info() transport.Info { return f.conn.Info() }

// FaultyDialer makes every Conn that its Dialer dials a Faulty one.
type FaultyDialer struct {
	transport.Dialer
	Faults Faults
}

// Dial implements transport.Dialer. The Conn is a *Faulty.
func (d FaultyDialer) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	c, err := d.Dialer.Dial(ctx, f)
	if err != nil {
		return nil, err
	}
	return NewFaulty(c, d.Faults), nil
}

// Containing gives fate to the messages that contain part.
func Containing(part []byte, fate Fate) func(int, []byte) Fate {
	return func(_ int, msg []byte) Fate {
		if bytes.Contains(msg, part) {
			return fate
		}
		return Fate{}
	}
}

// Nth gives fate to the message with that number, counted from 0.
func Nth(number int, fate Fate) func(int, []byte) Fate {
	return func(n int, _ []byte) Fate {
		if n == number {
			return fate
		}
		return Fate{}
	}
}
