package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// Listener accepts connections on one address. It may be used concurrently. A
// connection that is new stands in a queue of 32 for Accept, and those beyond
// are refused.
type Listener struct {
	socket     *net.UDPConn
	transport  *quicgo.Transport
	listener   *quicgo.EarlyListener
	framers    func() transport.Framer
	pools      pools
	handshakes handshakes
	linger     time.Duration

	// The socket is everybody's, and is closed by the last who uses it.
	mu     sync.Mutex
	users  int // connections, and the Listener until it is closed
	closed bool
}

var _ transport.Listener = (*Listener)(nil)

// Listen listens on "host:port"; port 0 takes a free one, which Endpoint names,
// and an empty host takes every address of the machine. framers makes the
// Framer of each Conn. ctx bounds the look-up of a host name only.
func Listen(ctx context.Context, address string, framers func() transport.Framer, given transport.TLS) (*Listener, error) {
	l := &Listener{framers: framers, pools: newPools(), linger: lingerTime, users: 1}
	if err := l.listen(ctx, address, given); err != nil {
		return nil, fmt.Errorf("quic %s: listen: %w", address, err)
	}
	return l, nil
}

func (l *Listener) listen(ctx context.Context, address string, given transport.TLS) error {
	if given == nil {
		return transport.Permanent(errNoTLS)
	}
	source := secure.NewSource(given, "", speakALPN)
	if _, err := source.Config(); err != nil {
		return err
	}
	var network net.ListenConfig
	socket, err := network.ListenPacket(ctx, "udp", address)
	if err != nil {
		return netfault.Listen(ctx, err)
	}
	l.socket = socket.(*net.UDPConn)
	l.transport = &quicgo.Transport{
		Conn:                l.socket,
		VerifySourceAddress: func(net.Addr) bool { return l.handshakes.challenge() },
		ConnContext:         l.handshakes.begin,
	}
	config := config()
	config.Allow0RTT = true
	config.MaxIncomingStreams = 2 // the Conn, and what awaken opens
	l.listener, err = l.transport.ListenEarly(&tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{ALPN},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return source.Config() },
	}, config)
	if err != nil {
		_ = l.transport.Close()
		_ = l.socket.Close()
		return netfault.Plain(err)
	}
	return nil
}

// Accept implements transport.Listener. The Conn may have no stream yet: its
// first Read waits for that.
func (l *Listener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.listener.Accept(ctx)
	switch {
	case err == nil && l.join():
		control := newControl(c, l.linger, l.leave)
		h := handshakeOf(c)
		h.accepted.Store(true)
		go func() {
			defer h.end()
			control.awaitClient()
		}()
		return newConn(control, l.framers(), l.pools), nil
	case err == nil: // it stood in the queue when we closed
		_ = c.CloseWithError(0, "")
		err = net.ErrClosed
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, quicgo.ErrServerClosed):
		err = net.ErrClosed
	default:
		err = netfault.Plain(err)
	}
	return nil, fmt.Errorf("%s: accept: %w", l.Endpoint(), err)
}

// Endpoint implements transport.Listener.
func (l *Listener) Endpoint() string { return "quic " + l.socket.LocalAddr().String() }

// Close implements transport.Listener. Calls after the first do nothing.
func (l *Listener) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if !first {
		return nil
	}
	_ = l.listener.Close()
	l.refuseQueue()
	l.leave()
	return nil
}

// refuseQueue ends those that nobody will accept any more.
func (l *Listener) refuseQueue() {
	for {
		c, err := l.listener.Accept(context.Background())
		if err != nil {
			return
		}
		_ = c.CloseWithError(0, "")
	}
}

// join keeps the socket for one more connection, if the Listener is open.
func (l *Listener) join() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.users++
	return true
}

// leave gives it back.
func (l *Listener) leave() {
	l.mu.Lock()
	l.users--
	last := l.users == 0
	l.mu.Unlock()
	if last {
		_ = l.transport.Close()
		_ = l.socket.Close()
	}
}
