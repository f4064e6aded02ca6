package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// Listener accepts connections on one address. It may be used concurrently and
// runs nothing in the background.
type Listener struct {
	listener *net.TCPListener
	framers  func() transport.Framer
	secure   *secure.Source // nil: without TLS
	pool     *framed.Pool

	turn    chan struct{} // held by the one Accept that waits in the kernel
	closing sync.Once
	closed  chan struct{}
}

var _ transport.Listener = (*Listener)(nil)

// Listen listens on "host:port"; port 0 takes a free one, which Endpoint names,
// and an empty host takes every address of the machine. framers makes the
// Framer of each Conn. With config the Conns speak TLS, 1.3 at least, and shake
// hands in their first Read or Write. ctx bounds the look-up of a host name only.
func Listen(ctx context.Context, address string, framers func() transport.Framer, config transport.TLS) (*Listener, error) {
	listen := net.ListenConfig{KeepAliveConfig: keepAlive()}
	bound, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("tcp %s: listen: %w", address, netfault.Listen(ctx, err))
	}
	l := &Listener{
		listener: bound.(*net.TCPListener),
		framers:  framers,
		pool:     framed.NewPool(readSize),
		turn:     make(chan struct{}, 1),
		closed:   make(chan struct{}),
	}
	if config != nil {
		l.secure = secure.NewSource(config, "")
	}
	return l, nil
}

// Accept implements transport.Listener.
func (l *Listener) Accept(ctx context.Context) (transport.Conn, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, l.fail(ctx.Err())
	case <-l.closed:
		return nil, l.fail(net.ErrClosed)
	}
	c, err := l.acceptUntil(ctx)
	switch {
	case err == nil && l.secure == nil:
		return newConn(c, l.framers(), l.pool)
	case err == nil:
		return l.acceptTLS(c)
	case errors.Is(err, net.ErrClosed):
		return nil, l.fail(net.ErrClosed)
	case ctx.Err() != nil:
		return nil, l.fail(ctx.Err())
	}
	return nil, l.fail(netfault.Plain(err))
}

// acceptTLS takes over c.
func (l *Listener) acceptTLS(c *net.TCPConn) (transport.Conn, error) {
	config, err := l.secure.Config()
	if err != nil {
		_ = c.Close()
		return nil, l.fail(err)
	}
	stream, err := newTLS(c, l.pool, config, tls.Server)
	if err != nil {
		_ = c.Close()
		return nil, l.fail(transport.Lost(err))
	}
	return newSecureConn(stream, l.framers(), l.pool, info(c)), nil
}

// acceptUntil gives up when ctx ends. The Listener's only deadline serves for
// it, which is why one Accept waits at a time.
func (l *Listener) acceptUntil(ctx context.Context) (*net.TCPConn, error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = l.listener.SetDeadline(time.Unix(1, 0)) // fails when closed, and then Accept does too
	})
	c, err := l.listener.AcceptTCP()
	if !stop() {
		<-interrupted
		_ = l.listener.SetDeadline(time.Time{})
	}
	return c, err
}

// Endpoint implements transport.Listener.
func (l *Listener) Endpoint() string { return "tcp " + l.listener.Addr().String() }

// Close implements transport.Listener. Calls after the first do nothing.
func (l *Listener) Close() error {
	var err error
	l.closing.Do(func() {
		close(l.closed)
		err = l.listener.Close()
	})
	if err != nil {
		return fmt.Errorf("%s: close: %w", l.Endpoint(), netfault.Plain(err))
	}
	return nil
}

func (l *Listener) fail(err error) error {
	return fmt.Errorf("%s: accept: %w", l.Endpoint(), err)
}
