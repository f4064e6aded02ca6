package transporttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// patience is how long the suite waits for what must happen at once.
const patience = 10 * time.Second

// open opens a line that is closed after the test.
func open(t *testing.T, h Harness, f transport.Framer) (transport.Conn, Far) {
	t.Helper()
	conn, far := h.Open(t, f)
	t.Cleanup(func() {
		conn.Close()
		far.Close()
	})
	return conn, far
}

// send writes to the far end.
func send(t *testing.T, far io.Writer, p []byte) {
	t.Helper()
	if _, err := far.Write(p); err != nil {
		t.Fatalf("the far end could not write: %v", err)
	}
}

// receive reads from the Conn, within patience.
func receive(t *testing.T, conn transport.Conn) ([]byte, error) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatalf("SetReadDeadline: %v", err)
	}
	return conn.Read()
}

// expect reads a message.
func expect(t *testing.T, conn transport.Conn, want []byte) {
	t.Helper()
	got, err := receive(t, conn)
	if err != nil {
		t.Fatalf("Read: %v, want a message of %d bytes", err, len(want))
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("Read: a message of %d bytes %.40q, want %d bytes %.40q", len(got), got, len(want), want)
	}
}

// expectLost checks that err is the peer's doing.
func expectLost(t *testing.T, err error) {
	t.Helper()
	expectError(t, err, transport.ErrLost)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		t.Errorf("%v reads like our own close", err)
	}
}

// expectError checks that err is of class want and of no other.
func expectError(t *testing.T, err, want error) {
	t.Helper()
	classes := []error{
		net.ErrClosed, transport.ErrLost, os.ErrDeadlineExceeded,
		transport.ErrFrame, transport.ErrTooLarge, transport.ErrPermanent,
	}
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want class %v", err, want)
	}
	for _, class := range classes {
		if class != want && errors.Is(err, class) { //nolint:errorlint // the table's own values
			t.Errorf("%v is of class %v and also of %v", err, want, class)
		}
	}
}

// fill returns n bytes that differ from their neighbours.
func fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// call is a function that runs in a goroutine of its own.
type call struct {
	goroutine string
	done      chan struct{}
	err       error
}

func start(f func() error) *call {
	c := &call{done: make(chan struct{})}
	name := make(chan string)
	go func() {
		header := make([]byte, 64)
		header = header[:runtime.Stack(header, false)]
		name <- string(header[:bytes.IndexByte(header, '[')]) // "goroutine 7 "
		c.err = f()
		close(c.done)
	}()
	c.goroutine = <-name
	return c
}

// result waits for the end.
func (c *call) result(t *testing.T) error {
	t.Helper()
	select {
	case <-c.done:
		return c.err
	case <-time.After(patience):
		t.Fatal("still blocked")
		return nil
	}
}

// untilBlocked waits until the call can't go on by itself.
func (c *call) untilBlocked(t *testing.T) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	giveUp := time.After(patience)
	for {
		select {
		case <-c.done:
			t.Fatalf("ended with %v, and should have blocked", c.err)
		case <-giveUp:
			t.Fatal("did not block")
		case <-look.C:
			if c.isBlocked() {
				return
			}
		}
	}
}

func (c *call) isBlocked() bool {
	all := make([]byte, 1<<20)
	all = all[:runtime.Stack(all, true)]
	_, after, found := strings.Cut("\n"+string(all), "\n"+c.goroutine+"[")
	if !found {
		return false
	}
	for _, waiting := range []string{"IO wait", "sync.Cond.Wait", "select", "chan receive"} {
		if strings.HasPrefix(after, waiting) {
			return true
		}
	}
	return false
}

// expectBytes reads from the far end.
func expectBytes(t *testing.T, far io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	err := start(func() error {
		_, err := io.ReadFull(far, got)
		return err
	}).result(t)
	if err != nil {
		t.Fatalf("the far end could not read: %v", err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("the far end read %.40q, want %.40q", got, want)
	}
}

// numbered is a frame with a number in it.
func numbered(n int) []byte { return Frame(fmt.Appendf(nil, "message %d", n)) }
