package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// Dialer dials one address. It keeps the server's session tickets, so that from
// the second Dial on what is written first leaves with the first packet, before
// the handshake (0-RTT). It may be used concurrently.
type Dialer struct {
	address string
	secure  *secure.Source // nil: there is no TLS, and so no QUIC
	pools   pools
	config  *quicgo.Config
	linger  time.Duration
}

var _ transport.Dialer = (*Dialer)(nil)

// NewDialer takes "host:port". A host name is looked up at each Dial, and its
// addresses are tried in turn. Without a TLS every Dial fails for good.
func NewDialer(address string, given transport.TLS) *Dialer {
	d := &Dialer{
		address: address,
		pools:   newPools(),
		config:  config(),
		linger:  lingerTime,
	}
	d.config.TokenStore = quicgo.NewLRUTokenStore(1, 4) // spares us Retry
	if given != nil {
		host, _, _ := net.SplitHostPort(address) // Dial says what is wrong with it
		d.secure = secure.NewSource(given, host, speakALPN, keepTickets)
	}
	return d
}

// speakALPN makes QUIC's configuration of one for TLS.
func speakALPN(c *tls.Config) { c.NextProtos = []string{ALPN} }

// keepTickets lets a connection resume the one before it. A ticket serves once,
// and a server gives one for each connection.
func keepTickets(c *tls.Config) {
	if c.ClientSessionCache == nil {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
}

// Endpoint implements transport.Dialer.
func (d *Dialer) Endpoint() string { return "quic " + d.address }

// Dial implements transport.Dialer. An address that doesn't answer takes five
// seconds. A Dial with 0-RTT returns at once, and then it is Read that fails if
// nobody is there.
func (d *Dialer) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	c, err := d.dial(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("%s: dial: %w", d.Endpoint(), dialError(ctx, err))
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, f transport.Framer) (*conn, error) {
	if d.secure == nil {
		return nil, transport.Permanent(errNoTLS)
	}
	config, err := d.secure.Config()
	if err != nil {
		return nil, err
	}
	addresses, err := resolve(ctx, d.address)
	if err != nil {
		return nil, err
	}
	for _, address := range addresses {
		var c *conn
		if c, err = d.dialAddress(ctx, address, config, f); err == nil || ctx.Err() != nil {
			return c, err
		}
	}
	return nil, err
}

var errNoTLS = errors.New("QUIC has no mode without TLS: configure tls")

// resolve looks up "host:port".
func resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addresses := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		addresses = append(addresses, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return addresses, nil
}

// dialAddress takes a socket of its own for each connection, bound to no
// address of ours: the kernel picks the one to send from packet by packet, and
// the connection lives on when an interface comes or goes.
func (d *Dialer) dialAddress(ctx context.Context, address netip.AddrPort, tlsConfig *tls.Config, f transport.Framer) (*conn, error) {
	network := "udp4"
	if address.Addr().Is6() {
		network = "udp6"
	}
	socket, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	t := &quicgo.Transport{Conn: socket}
	release := func() {
		_ = t.Close()
		_ = socket.Close()
	}
	c, err := t.DialEarly(ctx, net.UDPAddrFromAddrPort(address), tlsConfig, d.config)
	if err != nil {
		release()
		return nil, err
	}
	control := newControl(c, d.linger, release)
	control.dialed = true
	if err := control.begin(ctx); err != nil {
		_ = c.CloseWithError(0, "")
		release()
		return nil, err
	}
	return newConn(control, f, d.pools), nil
}

// begin opens the stream of a dialed connection.
func (c *control) begin(ctx context.Context) error {
	trial := false
	select {
	case <-c.conn.HandshakeComplete():
	default:
		trial = true // it could not have come so far but with 0-RTT
	}
	s, err := c.conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	c.setStream(s)
	if !trial {
		c.finalise()
		awaken(c.conn)
		return nil
	}
	c.early = make([]byte, 0, 512)
	go c.awaitServer()
	return nil
}
