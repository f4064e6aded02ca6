package quic

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func connected(t testing.TB) pair {
	t.Helper()
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	return meet(t, l, d)
}

// openStream opens one, and accepts it at the other end with the first message
// on it.
func openStream(t testing.TB, from, to transport.Conn, first string) (out, in transport.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := from.Info().Streams.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	say(t, out, first)
	in, err = to.Info().Streams.Accept(ctx, framers())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	hear(t, in, first)
	return out, in
}

func streamsWork(t *testing.T, p pair) {
	t.Helper()
	for _, way := range []struct{ from, to transport.Conn }{{p.dialed, p.accepted}, {p.accepted, p.dialed}} {
		out, in := openStream(t, way.from, way.to, "beside the Conn")
		say(t, out, "again")
		hear(t, in, "again")
	}
}

func TestStreamsGoBothWays(t *testing.T) { streamsWork(t, connected(t)) }

func TestAStreamHasOneDirection(t *testing.T) {
	p := connected(t)
	out, in := openStream(t, p.dialed, p.accepted, "x")
	if _, err := out.Read(); err == nil {
		t.Error("our own stream was read")
	}
	if err := in.Write([]byte("x")); err == nil {
		t.Error("the other's stream was written")
	}
	for _, c := range []transport.Conn{out, in} {
		if info := c.Info(); info.Transport != "quic" || info.Remote == "" || !info.Reliable || !info.Ordered {
			t.Errorf("Info: %+v", info)
		}
	}
}

func TestAStreamThatNobodyReadsHoldsUpNoOther(t *testing.T) {
	p := connected(t)
	stuck, _ := openStream(t, p.dialed, p.accepted, "x")
	_ = stuck.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	if err := stuck.Write(make([]byte, 2*streamWindow)); err == nil {
		t.Fatal("it never blocked")
	}
	say(t, p.dialed, "the Conn goes on")
	hear(t, p.accepted, "the Conn goes on")
	streamsWork(t, p)
}

func TestStreamsThatNobodyReadsLeaveTheConnItsRoom(t *testing.T) {
	p := connected(t)
	var filling sync.WaitGroup
	for range maxStreams {
		stuck, _ := openStream(t, p.dialed, p.accepted, "x")
		_ = stuck.SetWriteDeadline(time.Now().Add(time.Second))
		filling.Go(func() {
			if err := stuck.Write(make([]byte, 2*streamWindow)); err == nil {
				t.Error("it never blocked")
			}
		})
	}
	filling.Wait()
	const size = 16 << 10
	text := strings.Repeat("x", size)
	for range 2 * connectionWindow / size { // quic-go gives room by the quarter
		say(t, p.dialed, text)
		hear(t, p.accepted, text)
	}
}

func TestOneByteOnAStreamBorrowsLittle(t *testing.T) {
	if n := len(framed.NewBuffer(newPools().beside).Space()); n > 4<<10 {
		t.Errorf("%d bytes", n)
	}
}

func TestAStreamIsLostWithItsConnAndClosedByUs(t *testing.T) {
	p := connected(t)
	out, in := openStream(t, p.dialed, p.accepted, "x")
	closed, _ := openStream(t, p.dialed, p.accepted, "y")
	closed.Close()
	if err := closed.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write on a stream that was closed: %v", err)
	}
	accepting := make(chan error, 1)
	go func() {
		_, err := p.accepted.Info().Streams.Accept(t.Context(), framers())
		accepting <- err
	}()
	p.dialed.Close()
	_, err := in.Read()
	expectLost(t, err)
	expectLost(t, <-accepting)
	if err := out.Write([]byte("x")); err == nil {
		t.Error("a stream outlived its Conn")
	}
	if _, err := p.dialed.Info().Streams.Open(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Open on a Conn that was closed: %v", err)
	}
}

func TestWhatWasSaidOnAStreamThatIsClosedArrives(t *testing.T) {
	p := connected(t)
	out, in := openStream(t, p.dialed, p.accepted, "x")
	say(t, out, "last")
	out.Close()
	hear(t, in, "last")
	_, err := in.Read()
	expectLost(t, err)
}

func TestOpenWaitsForThePeerToAllowOneMore(t *testing.T) {
	p := connected(t)
	var last transport.Conn
	for range maxStreams {
		last, _ = openStream(t, p.dialed, p.accepted, "x")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.dialed.Info().Streams.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("one more than allowed: %v", err)
	}
	last.Close()
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.dialed.Info().Streams.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before the other end has seen the end: %v", err)
	}
}

func TestAStreamThatHasEndedMakesRoomForAnother(t *testing.T) {
	p := connected(t)
	for range 3 * maxStreams {
		out, in := openStream(t, p.dialed, p.accepted, "x")
		out.Close()
		_, err := in.Read()
		expectLost(t, err)
		in.Close()
	}
}

// datagramEnd is the far end of the datagrams, as quic-go has them.
type datagramEnd struct{ c *conn }

func (d datagramEnd) Read(p []byte) (int, error) {
	msg, err := d.c.control.conn.ReceiveDatagram(d.c.control.conn.Context())
	return copy(p, msg), err
}

func (d datagramEnd) Write(p []byte) (int, error) {
	return len(p), d.c.control.conn.SendDatagram(p)
}

func (d datagramEnd) Close() error { return d.c.Close() }

// withConn closes the connection with its datagrams.
type withConn struct {
	transport.Conn
	whole transport.Conn
}

func (w withConn) Close() error {
	err := w.Conn.Close()
	w.whole.Close()
	return err
}

func TestDatagramsAreATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{Open: func(t *testing.T, _ transport.Framer) (transport.Conn, transporttest.Far) {
		p := connected(t)
		return withConn{p.dialed.Info().Streams.Datagrams(), p.dialed}, datagramEnd{p.accepted.(*conn)}
	}})
}

func TestDatagramsEndWithoutTheConn(t *testing.T) {
	p := connected(t)
	p.dialed.Info().Streams.Datagrams().Close()
	say(t, p.dialed, "still here")
	hear(t, p.accepted, "still here")
}

func expectLost(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, transport.ErrLost) || errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want ErrLost", err)
	}
}
