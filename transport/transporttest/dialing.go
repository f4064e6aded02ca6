package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

func framers() transport.Framer { return &LengthFramer{} }

func dialingWhatIsAbsentIsLost(t *testing.T, h Harness) {
	if h.Absent == nil {
		return
	}
	d := h.Absent(t)
	_, err := d.Dial(t.Context(), framers())
	expectLost(t, err)
	if !strings.Contains(err.Error(), d.Endpoint()) {
		t.Errorf("%q does not name %q", err, d.Endpoint())
	}
}

func dialEndsWithItsContext(t *testing.T, h Harness) {
	if h.Absent == nil {
		return
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.Absent(t).Dial(over, framers())
	expectContextError(t, err, context.Canceled)
	if h.Stuck == nil {
		return
	}
	d := h.Stuck(t)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dialing := start(dial(ctx, d))
	dialing.untilBlocked(t)
	cancel()
	expectContextError(t, dialing.result(t), context.Canceled)

	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	expectContextError(t, start(dial(ctx, d)).result(t), context.DeadlineExceeded)
}

func dial(ctx context.Context, d transport.Dialer) func() error {
	return func() error {
		c, err := d.Dial(ctx, framers())
		if err == nil {
			c.Close()
		}
		return err
	}
}

func expectContextError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || errors.Is(err, transport.ErrLost) || errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v, want %v alone", err, want)
	}
}

func acceptedAndDialedTalkToEachOther(t *testing.T, h Harness) {
	if h.Listen == nil {
		return
	}
	l, d := h.Listen(t, framers)
	defer l.Close()
	var accepted, dialed transport.Conn
	welcoming := start(func() (err error) { accepted, err = welcome(t.Context(), l); return err })
	greeting := start(func() (err error) { dialed, err = greet(t.Context(), d); return err })
	if err := greeting.result(t); err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	if err := welcoming.result(t); err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()

	l.Close() // what was accepted stays
	for n, way := range []struct{ from, to transport.Conn }{{dialed, accepted}, {accepted, dialed}} {
		if err := way.from.Write(numbered(n)); err != nil {
			t.Fatal(err)
		}
		expect(t, way.to, numbered(n))
	}
}

// hello is what the dialing side says first: some transports have no Conn to
// accept before that.
func hello() []byte { return Frame([]byte("hello")) }

// greet dials and says hello. Whoever hangs up before that has been read may
// overtake it.
func greet(ctx context.Context, d transport.Dialer) (transport.Conn, error) {
	c, err := d.Dial(ctx, framers())
	if err != nil {
		return nil, err
	}
	return c, c.Write(hello())
}

// welcome accepts, and reads the hello: an accepted Conn makes its handshake,
// for which Dial waits, in its first Read.
func welcome(ctx context.Context, l transport.Listener) (transport.Conn, error) {
	c, err := l.Accept(ctx)
	if err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if msg, err := c.Read(); err != nil || !bytes.Equal(msg, hello()) {
		c.Close()
		return nil, fmt.Errorf("the first message is %q: %w", msg, err)
	}
	return c, nil
}

func acceptEndsWithItsContext(t *testing.T, h Harness) {
	if h.Listen == nil {
		return
	}
	l, d := h.Listen(t, framers)
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cancelled := start(accept(ctx, l))
	cancelled.untilBlocked(t)
	other := start(accept(t.Context(), l))
	other.untilBlocked(t)
	cancel()
	expectContextError(t, cancelled.result(t), context.Canceled)
	expectContextError(t, accept(ctx, l)(), context.Canceled)

	// The Listener still works, for the one who waits in it too.
	var dialed transport.Conn
	greeting := start(func() (err error) { dialed, err = greet(t.Context(), d); return err })
	if err := greeting.result(t); err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	if err := other.result(t); err != nil {
		t.Fatal(err)
	}
}

func closeUnblocksEveryAccept(t *testing.T, h Harness) {
	if h.Listen == nil {
		return
	}
	l, _ := h.Listen(t, framers)
	var accepting []*call
	for range 3 {
		accepting = append(accepting, start(accept(t.Context(), l)))
	}
	for _, a := range accepting {
		a.untilBlocked(t)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for _, a := range accepting {
		expectError(t, a.result(t), net.ErrClosed)
	}
	expectError(t, accept(t.Context(), l)(), net.ErrClosed)
}

func accept(ctx context.Context, l transport.Listener) func() error {
	return func() error {
		c, err := welcome(ctx, l)
		if err == nil {
			c.Close()
		}
		return err
	}
}
