package transporttest

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPipeIsATransport(t *testing.T) {
	Run(t, Harness{
		Open: func(_ *testing.T, f transport.Framer) (transport.Conn, Far) {
			near, far := newWire()
			return newConn(near, f, "a", "b"), far
		},
		Absent: func(t *testing.T) transport.Dialer {
			x := NewExchange("x", framers)
			x.Close()
			return x
		},
		Stuck: func(*testing.T) transport.Dialer { return NewExchange("x", framers) },
		Listen: func(_ *testing.T, f func() transport.Framer) (transport.Listener, transport.Dialer) {
			x := NewExchange("x", f)
			return x, x
		},
	})
}

func TestAFaultyLineWithoutFaultsIsATransport(t *testing.T) {
	Run(t, Harness{
		Open: func(_ *testing.T, f transport.Framer) (transport.Conn, Far) {
			near, far := newWire()
			return NewFaulty(newConn(near, f, "a", "b"), Faults{}), far
		},
		Absent: func(t *testing.T) transport.Dialer {
			x := NewExchange("x", framers)
			x.Close()
			return FaultyDialer{Dialer: x}
		},
		Listen: func(_ *testing.T, f func() transport.Framer) (transport.Listener, transport.Dialer) {
			x := NewExchange("x", f)
			return x, FaultyDialer{Dialer: x}
		},
	})
}

func TestInABubbleAPipeWaitsOnItsClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(framers(), &SilenceFramer{Silence: time.Hour})
		defer a.Close()
		defer b.Close()
		began := time.Now()
		_ = a.SetReadDeadline(began.Add(time.Minute))
		if _, err := a.Read(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("Read: %v after %v, want its deadline after a minute", err, time.Since(began))
		}
		if err := a.Write([]byte("then silence")); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if msg, err := b.Read(); string(msg) != "then silence" || time.Since(began) != time.Hour {
			t.Errorf("Read: %q, %v after %v, want the message after an hour", msg, err, time.Since(began))
		}
	})
}

func TestInABubbleAnExchangeWaitsDurably(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := NewExchange("x", framers)
		defer x.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := x.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Accept: %v", err)
		}
	})
}
