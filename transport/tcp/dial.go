// Package tcp carries messages over TCP connections.
//
// Keep-alive is on, and Nagle's algorithm is off (Go's default): a request of
// twelve bytes must not wait for an acknowledgement. A peer that closes its
// sending half is taken as gone, because no device protocol goes on after it.
package tcp

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// A peer that vanished without a word is noticed after Idle + Count × Interval,
// one minute, also by a Conn that only reads.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}
}

// readSize is how much one read may bring, in bytes, where messages are that large.
const readSize = 64 << 10

// Dialers makes Dialers that share the memory which their Conns read into, so that
// ten thousand links that wait hold little of it. It may be used concurrently.
type Dialers struct{ pool *framed.Pool }

// NewDialers makes one.
func NewDialers() *Dialers { return &Dialers{pool: framed.NewPool(readSize)} }

// Dialer dials one address. It may be used concurrently.
type Dialer struct {
	address string
	secure  *secure.Source // nil: without TLS
	pool    *framed.Pool
}

var _ transport.Dialer = (*Dialer)(nil)

// NewDialer is NewDialers().Dialer, for one that stands alone.
func NewDialer(address string, config transport.TLS) *Dialer {
	return NewDialers().Dialer(address, config)
}

// Dialer takes "host:port". A host name is looked up at each Dial, and its
// addresses are tried in turn. With config the Conns speak TLS, 1.3 at least,
// and the peer's certificate must be made out to config's ServerName, or to the
// host if there is none.
func (ds *Dialers) Dialer(address string, config transport.TLS) *Dialer {
	d := &Dialer{address: address, pool: ds.pool}
	if config != nil {
		host, _, _ := net.SplitHostPort(address) // Dial complains of a bad one
		d.secure = secure.NewSource(config, host)
	}
	return d
}

// Dial implements transport.Dialer. Without a deadline in ctx the kernel gives
// up after some two minutes.
func (d *Dialer) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: keepAlive()}
	c, err := dialer.DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, fmt.Errorf("%s: dial: %w", d.Endpoint(), dialError(ctx, err))
	}
	if d.secure == nil {
		return newConn(c.(*net.TCPConn), f, d.pool)
	}
	secured, err := d.dialTLS(ctx, c.(*net.TCPConn), f)
	if err != nil {
		return nil, fmt.Errorf("%s: dial: %w", d.Endpoint(), err)
	}
	return secured, nil
}

// dialTLS takes over c.
func (d *Dialer) dialTLS(ctx context.Context, c *net.TCPConn, f transport.Framer) (transport.Conn, error) {
	config, err := d.secure.Config()
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	stream, err := newTLS(c, d.pool, config, tls.Client)
	if err != nil {
		_ = c.Close()
		return nil, transport.Lost(err)
	}
	if err := stream.handshakeWithin(ctx); err != nil {
		_ = stream.Close()
		return nil, tlsDialError(err)
	}
	return newSecureConn(stream, f, d.pool, info(c)), nil
}

// Endpoint implements transport.Dialer.
func (d *Dialer) Endpoint() string { return "tcp " + d.address }

// newConn takes over c.
func newConn(c *net.TCPConn, f transport.Framer, p *framed.Pool) (transport.Conn, error) {
	stream, err := framed.NewDescriptor(c)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("tcp %s: %w", c.RemoteAddr(), transport.Lost(err))
	}
	return framed.New(stream, f, p, info(c)), nil
}

func info(c *net.TCPConn) transport.Info {
	return transport.Info{
		Transport: "tcp",
		Local:     c.LocalAddr().String(),
		Remote:    c.RemoteAddr().String(),
		Reliable:  true,
		Ordered:   true,
	}
}
