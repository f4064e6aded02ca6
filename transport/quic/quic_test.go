package quic

import (
	"net"
	"os"
	"sync"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestMain(m *testing.M) {
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	goleak.VerifyTestMain(m)
}

func framers() transport.Framer { return &transporttest.LengthFramer{} }

func TestQUICIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{Open: openDialed, Absent: absent, Stuck: stuck, Listen: listen})
}

func TestAnAcceptedConnIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{Open: openAccepted, Absent: absent})
}

// far is the other end, in quic-go's own words. Its stream is there when it is
// first needed.
type far struct {
	conn   *quicgo.Conn
	after  func() // closes its socket
	opened func() (*quicgo.Stream, error)
}

func (f *far) Read(p []byte) (int, error) {
	s, err := f.opened()
	if err != nil {
		return 0, err
	}
	return s.Read(p)
}

func (f *far) Write(p []byte) (int, error) {
	s, err := f.opened()
	if err != nil {
		return 0, err
	}
	return s.Write(p)
}

// Close says that nothing more comes, and leaves when the other end has gone.
func (f *far) Close() error {
	if s, err := f.opened(); err == nil {
		s.CancelRead(0)
		_ = s.Close()
	}
	go func() {
		select {
		case <-f.conn.Context().Done():
		case <-time.After(lingerTime):
		}
		_ = f.Abort()
	}()
	return nil
}

// Abort leaves without waiting for what was sent.
func (f *far) Abort() error {
	err := f.conn.CloseWithError(7, "")
	f.after()
	return err
}

// short is how long the tests' Conns linger, for peers that don't react.
const short = 20 * time.Millisecond

func openDialed(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) {
	ca := transporttest.NewCA(t)
	server := ca.Server()().Clone()
	server.NextProtos = []string{ALPN}
	socket := loopback(t)
	listening := &quicgo.Transport{Conn: socket}
	l, err := listening.Listen(server, &quicgo.Config{EnableDatagrams: true})
	if err != nil {
		t.Fatal(err)
	}
	d := NewDialer(l.Addr().String(), ca.Client())
	d.linger = short
	conn, err := d.Dial(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return conn, &far{
		conn: peer,
		after: func() {
			_ = listening.Close()
			_ = socket.Close()
		},
		opened: sync.OnceValues(func() (*quicgo.Stream, error) { return peer.AcceptStream(peer.Context()) }),
	}
}

func openAccepted(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) {
	ca := transporttest.NewCA(t)
	l, err := Listen(t.Context(), "127.0.0.1:0", func() transport.Framer { return f }, ca.Server())
	if err != nil {
		t.Fatal(err)
	}
	l.linger = short
	defer l.Close()
	client := ca.Client()().Clone()
	client.NextProtos = []string{ALPN}
	peer, err := quicgo.DialAddr(t.Context(), l.socket.LocalAddr().String(), client, &quicgo.Config{EnableDatagrams: true})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := peer.OpenStream()
	awaken(peer)
	return conn, &far{
		conn: peer, after: func() {},
		opened: func() (*quicgo.Stream, error) { return s, err },
	}
}

// absent dials a port that nobody has.
func absent(t *testing.T) transport.Dialer {
	d := silent(t)
	d.config.HandshakeIdleTimeout = 50 * time.Millisecond
	return d
}

// stuck dials a socket that never answers.
func stuck(t *testing.T) transport.Dialer { return silent(t) }

func silent(t *testing.T) *Dialer {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return NewDialer(socket.LocalAddr().String(), transporttest.NewCA(t).Client())
}

func listen(t *testing.T, f func() transport.Framer) (transport.Listener, transport.Dialer) {
	ca := transporttest.NewCA(t)
	l, err := Listen(t.Context(), "127.0.0.1:0", f, ca.Server())
	if err != nil {
		t.Fatal(err)
	}
	d := NewDialer(l.socket.LocalAddr().String(), ca.Client())
	l.linger, d.linger = short, short
	return l, d
}
