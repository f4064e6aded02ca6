package tcp

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestTLSIsATransport(t *testing.T) {
	ca := transporttest.NewCA(t)
	transporttest.Run(t, transporttest.Harness{
		Open: func(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) {
			return openDialedTLS(t, ca.MutualServer(), ca.Client("press-7"), f)
		},
		Absent: func(t *testing.T) transport.Dialer {
			return NewDialer(absent(t).(*Dialer).address, ca.Client())
		},
		Stuck: func(t *testing.T) transport.Dialer { return silent(t, ca.Client()) },
		Listen: func(t *testing.T, f func() transport.Framer) (transport.Listener, transport.Dialer) {
			return listenTLS(t, f, ca.Server(), ca.Client())
		},
	})
}

func TestAnAcceptedTLSConnIsATransport(t *testing.T) {
	ca := transporttest.NewCA(t)
	transporttest.Run(t, transporttest.Harness{
		Open: func(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) {
			return openAcceptedTLS(t, ca.MutualServer(), ca.Client("press-7"), f)
		},
	})
}

// farTLS can die without a goodbye.
type farTLS struct{ *tls.Conn }

func (f farTLS) Abort() error { return far{f.NetConn().(*net.TCPConn)}.Abort() }

func openDialedTLS(t testing.TB, server, client transport.TLS, f transport.Framer) (transport.Conn, farTLS) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peers := make(chan farTLS, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(peers)
			return
		}
		peer := farTLS{tls.Server(c, server())}
		_ = peer.Handshake() // if it fails, whatever comes next does too
		peers <- peer
	}()
	conn, err := NewDialer(l.Addr().String(), client).Dial(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return conn, <-peers
}

// openAcceptedTLS returns a Conn that has shaken hands.
func openAcceptedTLS(t *testing.T, server, client transport.TLS, f transport.Framer) (transport.Conn, farTLS) {
	t.Helper()
	conn, peer := acceptTLS(t, server, client, f)
	shaken := make(chan error)
	go func() { shaken <- peer.Handshake() }()
	if err := conn.Write(nil); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	return conn, peer
}

// acceptTLS returns a Conn that has not.
func acceptTLS(t *testing.T, server, client transport.TLS, f transport.Framer) (transport.Conn, farTLS) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", func() transport.Framer { return f }, server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return conn, farTLS{tls.Client(c, client())}
}

func listenTLS(t *testing.T, f func() transport.Framer, server, client transport.TLS) (transport.Listener, transport.Dialer) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", f, server)
	if err != nil {
		t.Fatal(err)
	}
	return l, NewDialer(l.listener.Addr().String(), client)
}

// silent dials a peer that takes connections and says nothing.
func silent(t *testing.T, client transport.TLS) transport.Dialer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return NewDialer(l.Addr().String(), client)
}
