// Package udp carries messages as UDP datagrams, plain or with DTLS 1.2
// (RFC 6347) and connection IDs (RFC 9146). Plain ones may be lost, repeated,
// reordered and forged; with DTLS they may be lost and reordered.
//
// A message is a datagram, and no datagram is ever fragmented.
package udp

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
)

// Dialer dials one address. It may be used concurrently.
type Dialer struct {
	address string
	config  Config
	host    string
}

var _ transport.Dialer = (*Dialer)(nil)

// NewDialer takes "host:port"; the host's name is looked up at each Dial. With
// DTLS the peer's certificate must be made out to the configuration's
// ServerName, or to the host if there is none.
func NewDialer(address string, config Config) *Dialer {
	host, _, _ := net.SplitHostPort(address) // Dial complains of a bad one
	return &Dialer{address: address, config: config.withDefaults(), host: host}
}

// Dial implements transport.Dialer. Nothing of the plain protocol tells whether
// the peer is there; with DTLS the handshake does. The Conn takes what comes
// from the peer's address only. It outlives a change of our own address and
// route; it is lost when the peer's host says that nobody listens there.
func (d *Dialer) Dial(ctx context.Context, _ transport.Framer) (transport.Conn, error) {
	c, err := d.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: dial: %w", d.Endpoint(), err)
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context) (*conn, error) {
	var setup *settings
	if d.config.TLS != nil {
		var err error
		if setup, err = newSettings(d.config, d.host); err != nil {
			return nil, err
		}
	}
	s, w, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{in: newMailbox(s.packets), info: info(d.config, w.local, w.remote)}
	line := &line{socket: s, remote: w.remote, in: c.in, ended: make(chan struct{})}
	if setup == nil {
		c.carrier = line
		go line.run()
		return c, nil
	}
	line.in = newMailbox(s.packets)
	session, err := newSession(setup.client(), line, line.in, c.in)
	if err != nil {
		s.close()
		return nil, err
	}
	c.carrier = session
	go line.run()
	go session.run()
	if err := session.handshakeWithin(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Endpoint implements transport.Dialer.
func (d *Dialer) Endpoint() string { return "udp " + d.address }

type way struct {
	local  string
	remote netip.AddrPort
}

// open looks up the address, finds out from where it is reached, and opens a
// socket. The socket is not connected: a connected one keeps the local address
// of its first day, and is deaf once the machine has another.
func (d *Dialer) open(ctx context.Context) (*socket, way, error) {
	probe, err := (&net.Dialer{}).DialContext(ctx, "udp", d.address)
	if err != nil {
		return nil, way{}, dialError(ctx, err)
	}
	to := probe.RemoteAddr().(*net.UDPAddr).AddrPort()
	from := probe.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = probe.Close()

	network := "udp6"
	if to.Addr().Unmap().Is4() {
		network = "udp4"
	}
	c, err := (&net.ListenConfig{}).ListenPacket(ctx, network, ":0")
	if err != nil {
		return nil, way{}, dialError(ctx, err)
	}
	port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	s, err := newSocket(c.(*net.UDPConn), d.config.MaxDatagram, true)
	if err != nil {
		return nil, way{}, transport.Lost(netfault.Plain(err))
	}
	return s, way{
		local:  netip.AddrPortFrom(from.Addr().Unmap(), port).String(),
		remote: netip.AddrPortFrom(to.Addr().Unmap(), to.Port()),
	}, nil
}

func info(config Config, local string, remote netip.AddrPort) transport.Info {
	return transport.Info{Transport: "udp", Local: local, Remote: remote.String(), MaxMessage: config.maxMessage()}
}

// line is a socket of a Conn of its own. It brings in what comes from remote.
type line struct {
	socket *socket
	remote netip.AddrPort
	in     *mailbox
	ended  chan struct{} // closed when run is over
}

var (
	_ carrier = (*line)(nil)
	_ lower   = (*line)(nil)
)

// run ends when the socket is closed or the peer's host says that nobody
// listens.
func (l *line) run() {
	defer close(l.ended)
	for {
		p, err := l.socket.receive()
		switch {
		case err == nil && p.from == l.remote && l.in.put(p):
		case err == nil:
			l.socket.packets.takeBack(p)
		case !isNotice(err):
			l.in.end(lost(err))
			return
		}
	}
}

func (l *line) peer() netip.AddrPort { return l.remote }

// sendTo implements lower. The one who was dialed stays where it is.
func (l *line) sendTo(p []byte, _ netip.AddrPort) error { return l.socket.send(p, l.remote, nil) }

func (l *line) begin() {}

func (l *line) names() []string { return nil }

func (l *line) shakenHands(*framed.Deadline) error { return nil }

func (l *line) send(msg []byte) error { return l.socket.send(msg, l.remote, nil) }

func (l *line) close() {
	l.socket.close()
	<-l.ended
}
