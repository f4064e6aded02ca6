package quic

import (
	"context"
	"crypto/tls"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// pair is a dialed Conn and the one that was accepted for it.
type pair struct{ dialed, accepted transport.Conn }

// meet dials and accepts, and has the client say hello.
func meet(t testing.TB, l *Listener, d *Dialer) pair {
	t.Helper()
	dialed, err := d.Dial(t.Context(), framers())
	if err != nil {
		t.Fatal(err)
	}
	say(t, dialed, "hello")
	accepted, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hear(t, accepted, "hello")
	t.Cleanup(func() {
		dialed.Close()
		accepted.Close()
	})
	return pair{dialed, accepted}
}

func say(t testing.TB, c transport.Conn, text string) {
	t.Helper()
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	if err := c.Write(transporttest.Frame([]byte(text))); err != nil {
		t.Fatalf("saying %q: %v", text, err)
	}
}

func hear(t testing.TB, c transport.Conn, text string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	msg, err := c.Read()
	if err != nil || !slices.Equal(msg, transporttest.Frame([]byte(text))) {
		t.Fatalf("heard %q, %v; want %q", msg, err, text)
	}
}

const patience = 10 * time.Second

func ends(t testing.TB, server, client transport.TLS) (*Listener, *Dialer) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", framers, server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d := NewDialer(l.socket.LocalAddr().String(), client)
	l.linger, d.linger = short, short
	return l, d
}

// ticket makes a first connection, so that the next one may begin with 0-RTT.
func ticket(t *testing.T, l *Listener, d *Dialer) {
	t.Helper()
	first := meet(t, l, d)
	say(t, first.accepted, "welcome") // the ticket comes before it
	hear(t, first.dialed, "welcome")
	first.dialed.Close()
	first.accepted.Close()
}

func TestADeviceThatComesBackIsHeardBeforeTheHandshake(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.MutualServer(), ca.Client("press-7"))
	ticket(t, l, d)

	r := newRelay(t, l)
	d.address = r.address()
	r.hold(true) // so the client can't answer
	dialed, err := d.Dial(t.Context(), framers())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	say(t, dialed, "hello")
	accepted, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	hear(t, accepted, "hello")
	select {
	case <-accepted.Info().Confirmed:
		t.Error("confirmed without the end of the handshake: it may be a replay")
	default:
	}
	if names := accepted.Info().Names; !slices.Equal(names, []string{"press-7"}) {
		t.Errorf("the names are %q", names)
	}
	r.hold(false)
	select {
	case <-accepted.Info().Confirmed:
	case <-time.After(patience):
		t.Fatal("never confirmed")
	}
	say(t, accepted, "welcome")
	hear(t, dialed, "welcome")
	if !dialed.(*conn).control.conn.ConnectionState().Used0RTT {
		t.Error("it was not 0-RTT")
	}
}

func TestWhatARejected0RTTHadSaidIsSaidAgain(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	ticket(t, l, d)
	address := l.socket.LocalAddr().String()
	l.Close()

	// One that has restarted knows no tickets of before.
	l, err := Listen(t.Context(), address, framers, ca.Server())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.linger = short
	dialed, err := d.Dial(t.Context(), framers())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	if dialed.(*conn).control.isReady() {
		t.Fatal("it does not try 0-RTT")
	}
	answered := make(chan error, 1)
	go func() {
		_ = dialed.SetReadDeadline(time.Now().Add(patience))
		_, err := dialed.Read()
		answered <- err
	}()
	for _, text := range []string{"one", "two", "three"} {
		say(t, dialed, text)
	}
	accepted, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for _, text := range []string{"one", "two", "three"} {
		hear(t, accepted, text)
	}
	say(t, accepted, "welcome")
	if err := <-answered; err != nil {
		t.Errorf("the reader that waited all the time: %v", err)
	}
	if dialed.(*conn).control.conn.ConnectionState().Used0RTT {
		t.Error("0-RTT was not rejected")
	}
	streamsWork(t, pair{dialed, accepted})
}

func TestMoreThan0RTTMayCarryWaitsForTheServer(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	ticket(t, l, d)
	dialed, err := d.Dial(t.Context(), framers())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	large := string(make([]byte, maxEarly+1))
	say(t, dialed, "small")
	say(t, dialed, large)
	accepted, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	hear(t, accepted, "small")
	hear(t, accepted, large)
}

func TestAConfigurationThatHasChangedIsUsedAndTicketsOfTheOldOneAreNot(t *testing.T) {
	ca, other := transporttest.NewCA(t), transporttest.NewCA(t)
	var server, client atomic.Pointer[tls.Config]
	server.Store(ca.Server()())
	client.Store(ca.Client()())
	l, d := ends(t, server.Load, client.Load)
	ticket(t, l, d)
	server.Store(other.Server()())
	client.Store(other.Client()())
	p := meet(t, l, d)
	if state := p.dialed.(*conn).control.conn.ConnectionState(); state.TLS.DidResume {
		t.Error("the new configuration resumed a session of the old one")
	}
}

func TestADialWith0RTTToNobodyEndsInRead(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	ticket(t, l, d)
	l.Close()
	d.config.HandshakeIdleTimeout = 50 * time.Millisecond
	dialed, err := d.Dial(t.Context(), framers())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	_ = dialed.SetReadDeadline(time.Now().Add(patience))
	_, err = dialed.Read()
	expectLost(t, err)
	if _, err := dialed.Info().Streams.Open(t.Context()); err == nil {
		t.Error("a stream was opened to nobody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dialed.Info().Streams.Accept(ctx, framers()); err == nil {
		t.Error("a stream was accepted from nobody")
	}
}
