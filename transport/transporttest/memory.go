package transporttest

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// capacity is how many bytes wait in one direction of an in-memory line before
// Write blocks.
const capacity = 64 << 10

var errReset = errors.New("reset by the other side")

// wire is an in-memory line; its two ends share one lock.
type wire struct {
	mu      sync.Mutex
	changed sync.Cond
	cut     bool
}

// end is one side of a wire: a byte stream for a Conn, or in a test's hands. It
// waits on a condition only, which makes it fit for synctest.
type end struct {
	wire  *wire
	other *end

	inbox         []byte
	closed        bool
	read, written limit
}

// limit is a deadline on a condition.
type limit struct {
	at    time.Time
	timer *time.Timer
}

var (
	_ framed.Stream      = (*end)(nil)
	_ io.ReadWriteCloser = (*end)(nil)
)

func newWire() (a, b *end) {
	w := new(wire)
	w.changed.L = &w.mu
	a, b = &end{wire: w}, &end{wire: w}
	a.other, b.other = b, a
	return a, b
}

// Fill implements framed.Stream.
func (e *end) Fill(in *framed.Buffer, wait bool) (int, error) {
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	for {
		switch {
		case len(e.inbox) > 0 && e.readable() == nil:
			return e.take(in.Space()), nil
		case e.readable() != nil:
			return 0, e.readable()
		case !wait:
			return 0, nil
		}
		in.Release()
		e.wire.changed.Wait()
	}
}

// Read implements io.Reader.
func (e *end) Read(p []byte) (int, error) {
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	for len(e.inbox) == 0 && e.readable() == nil {
		e.wire.changed.Wait()
	}
	if err := e.readable(); err != nil {
		return 0, err
	}
	return e.take(p), nil
}

// readable says why there is nothing to wait for.
func (e *end) readable() error {
	switch {
	case e.closed:
		return os.ErrClosed
	case e.wire.cut:
		return errReset
	case e.read.passed():
		return os.ErrDeadlineExceeded
	case e.other.closed && len(e.inbox) == 0:
		return io.EOF
	}
	return nil
}

func (e *end) take(p []byte) int {
	n := copy(p, e.inbox)
	e.inbox = append(e.inbox[:0], e.inbox[n:]...)
	e.wire.changed.Broadcast()
	return n
}

// Write implements framed.Stream and io.Writer.
func (e *end) Write(p []byte) (int, error) {
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	sent := 0
	for {
		switch {
		case e.closed:
			return sent, os.ErrClosed
		case e.wire.cut || e.other.closed:
			return sent, errReset
		case e.written.passed():
			return sent, os.ErrDeadlineExceeded
		}
		n := min(len(p)-sent, capacity-len(e.other.inbox))
		e.other.inbox = append(e.other.inbox, p[sent:sent+n]...)
		sent += n
		e.wire.changed.Broadcast()
		if sent == len(p) {
			return sent, nil
		}
		e.wire.changed.Wait()
	}
}

// SetReadDeadline implements framed.Stream.
func (e *end) SetReadDeadline(t time.Time) error { return e.setLimit(&e.read, t) }

// SetWriteDeadline implements framed.Stream.
func (e *end) SetWriteDeadline(t time.Time) error { return e.setLimit(&e.written, t) }

func (e *end) setLimit(l *limit, t time.Time) error {
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.at = t
	if !t.IsZero() && !e.closed {
		l.timer = time.AfterFunc(time.Until(t), e.wire.wake)
	}
	e.wire.changed.Broadcast()
	if e.closed {
		return os.ErrClosed
	}
	return nil
}

func (l *limit) passed() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }

func (w *wire) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed.Broadcast()
}

// Close implements framed.Stream and io.Closer. The other side still reads what
// was written before.
func (e *end) Close() error {
	_ = e.SetReadDeadline(time.Time{})
	_ = e.SetWriteDeadline(time.Time{})
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	e.closed = true
	e.inbox = nil
	e.wire.changed.Broadcast()
	return nil
}

// Abort closes without what was written before.
func (e *end) Abort() error {
	e.wire.mu.Lock()
	e.wire.cut = true
	e.wire.mu.Unlock()
	return e.Close()
}
