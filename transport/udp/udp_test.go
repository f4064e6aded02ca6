package udp

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestUDPIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Open: func(t *testing.T, _ transport.Framer) (transport.Conn, transporttest.Far) {
			return openDialed(t, Config{})
		},
		Listen: func(t *testing.T, _ func() transport.Framer) (transport.Listener, transport.Dialer) {
			return listenAndDial(t, Config{}, Config{})
		},
	})
}

func TestAnAcceptedConnIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Silent: true,
		Open: func(t *testing.T, _ transport.Framer) (transport.Conn, transporttest.Far) {
			return openAccepted(t, Config{})
		},
	})
}

func TestDTLSIsATransport(t *testing.T) {
	ca := transporttest.NewCA(t)
	transporttest.Run(t, transporttest.Harness{
		Open: func(t *testing.T, _ transport.Framer) (transport.Conn, transporttest.Far) {
			near, peer := secureEnds(t, Config{TLS: ca.MutualServer()}, Config{TLS: ca.Client("client")})
			return near, far{peer}
		},
		Absent: func(t *testing.T) transport.Dialer {
			return NewDialer(deserted(t), Config{TLS: ca.Client()})
		},
		Stuck: func(t *testing.T) transport.Dialer {
			return NewDialer(mute(t).LocalAddr().String(), Config{TLS: ca.Client()})
		},
		Listen: func(t *testing.T, _ func() transport.Framer) (transport.Listener, transport.Dialer) {
			return listenAndDial(t, Config{TLS: ca.Server()}, Config{TLS: ca.Client()})
		},
	})
}

func TestAnAcceptedDTLSConnIsATransport(t *testing.T) {
	ca := transporttest.NewCA(t)
	transporttest.Run(t, transporttest.Harness{
		Open: func(t *testing.T, _ transport.Framer) (transport.Conn, transporttest.Far) {
			peer, near := secureEnds(t, Config{TLS: ca.MutualServer()}, Config{TLS: ca.Client("client")})
			return near, far{peer}
		},
	})
}

// far is the far end of a DTLS Conn: another one.
type far struct{ transport.Conn }

func (f far) Read(p []byte) (int, error) {
	msg, err := f.Conn.Read()
	return copy(p, msg), err
}

func (f far) Write(p []byte) (int, error) {
	if err := f.Conn.Write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// mute is a socket that never answers.
func mute(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// deserted is an address where nothing listens.
func deserted(t *testing.T) string {
	t.Helper()
	c := mute(t)
	c.Close()
	return c.LocalAddr().String()
}

func listenAndDial(t testing.TB, server, client Config) (*Listener, *Dialer) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	return l, NewDialer(l.local, client)
}

func dial(t testing.TB, d *Dialer) transport.Conn {
	t.Helper()
	c, err := d.Dial(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func openDialed(t *testing.T, config Config) (transport.Conn, transporttest.Far) {
	t.Helper()
	peer := mute(t)
	conn := dial(t, NewDialer(peer.LocalAddr().String(), config))
	return conn, connected{peer.(*net.UDPConn), conn.Info().Local}
}

// connected is a socket that sends to one address.
type connected struct {
	*net.UDPConn
	to string
}

func (c connected) Write(p []byte) (int, error) {
	to, err := net.ResolveUDPAddr("udp", c.to)
	if err != nil {
		return 0, err
	}
	return c.WriteTo(p, to)
}

func openAccepted(t testing.TB, config Config) (transport.Conn, net.Conn) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("udp", l.local)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	conn := accept(t, l)
	expect(t, conn, "first")
	return conn, peer
}

func accept(t testing.TB, l *Listener) transport.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func expect(t testing.TB, c transport.Conn, want string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	msg, err := c.Read()
	_ = c.SetReadDeadline(time.Time{})
	if string(msg) != want {
		t.Fatalf("Read: %.40q, %v, want %q", msg, err, want)
	}
}

// secureEnds are the two ends of a DTLS session.
func secureEnds(t testing.TB, server, client Config, change ...func(client *Config)) (dialed, accepted transport.Conn) {
	t.Helper()
	for _, c := range change {
		c(&client)
	}
	l, d := listenAndDial(t, server, client)
	defer l.Close()
	return meet(t, l, d)
}
