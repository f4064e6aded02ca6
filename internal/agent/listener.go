package agent

import (
	"context"
	"fmt"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/auth"
	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/quic"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// listener is a [[listen]] with its server.
type listener struct {
	name   string
	listen func(ctx context.Context) (transport.Listener, error)
	server *mcp.Server
	socket transport.Listener
}

func (a *Agent) buildListener(c *config.Listen) (*listener, error) {
	fail := func(err error) (*listener, error) { return nil, fmt.Errorf("listener %s: %w", c.Name, err) }
	secure, err := a.serverTLS("listener "+c.Name, c.TLS)
	if err != nil {
		return fail(err)
	}
	serverConfig := mcp.ServerConfig{
		ListenConfig: c.ListenConfig, Name: c.Name, Agent: a.cfg.Agent.ID, Epoch: a.store.Epoch(), Remotes: a.remotes(c.Name),
		Level: a.level(c.Durability, a.devicesCalling(c.Name)),
	}
	if tokens, certificates, wanted := c.Authentication(); wanted {
		keys, err := auth.New(tokens, certificates, a.log.With("listener", c.Name))
		if err != nil {
			return fail(err)
		}
		a.keep("keys of listener "+c.Name, keys.Run)
		serverConfig.Authenticator = authenticator{keys}
	}
	server, err := mcp.NewServer(serverConfig, a.store, a.clock.Now, a.log.With("listener", c.Name))
	if err != nil {
		return fail(err)
	}
	return &listener{
		name: c.Name, server: server,
		listen: func(ctx context.Context) (transport.Listener, error) {
			return listen(ctx, c.Transport, c.Address, c.UDP, server.Framer, secure, server.Gate)
		},
	}, nil
}

// listen is the table of transports that can be listened on. gate decides on
// plain UDP which addresses may have a connection; nil: all.
func listen(
	ctx context.Context, kind, address string, datagrams udp.Config, framers func() transport.Framer, secure transport.TLS, gate udp.Gate,
) (transport.Listener, error) {
	switch kind {
	case "tcp":
		return tcp.Listen(ctx, address, framers, secure)
	case "udp":
		datagrams.TLS, datagrams.Gate = secure, gate
		return udp.Listen(ctx, address, datagrams)
	case "quic":
		return quic.Listen(ctx, address, framers, secure)
	}
	return nil, fmt.Errorf("nothing listens on transport %q", kind)
}

// devicesCalling lists the known devices of a listener.
func (a *Agent) devicesCalling(listener string) (list []*config.Device) {
	for i := range a.cfg.Devices {
		if d := &a.cfg.Devices[i]; d.Listen == listener {
			list = append(list, d)
		}
	}
	return list
}

// remotes lists the devices that can't say HELLO, by their IP address.
func (a *Agent) remotes(listenName string) map[string]string {
	devices := make(map[string]string)
	for i := range a.cfg.Devices {
		if d := &a.cfg.Devices[i]; d.Listen == listenName && d.Remote != "" {
			devices[d.Remote] = d.ID
		}
	}
	return devices
}

func (l *listener) open(ctx context.Context) error {
	socket, err := l.listen(ctx)
	if err != nil {
		return fmt.Errorf("listener %s: %w", l.name, err)
	}
	l.socket = socket // and not before: an interface around a nil pointer is not nil
	return nil
}

func (l *listener) run(ctx context.Context) error { return l.server.Run(ctx, l.socket) }

func (l *listener) close() {
	if l.socket != nil {
		l.socket.Close()
	}
}

// state is what an operator sees of the listener.
func (l *listener) state() admin.Listener {
	s := l.server.Stats()
	return admin.Listener{
		Name: l.name, Endpoint: l.socket.Endpoint(), Connections: s.Connections, Handshakes: s.Handshakes,
		Accepted: s.Accepted, Reconnects: s.Reconnects, Replaced: s.Replaced, BadFrames: s.BadFrames, Records: s.Records, Repeats: s.Repeats,
		SetBacks: s.SetBacks, Holes: s.Holes, Lost: s.Lost, Refused: l.refused(s),
	}
}

// refused names each reason, also those that have not come up: a metric that
// appears only with the first refusal can't be watched.
func (l *listener) refused(s mcp.Stats) map[string]uint64 {
	r := s.Refusals
	reasons := map[string]uint64{
		"max_connections": r.Connections, "max_connections_per_address": r.PerAddress, "max_handshakes": r.Handshakes,
		"hello_timeout": r.HelloTimeouts, "frame_timeout": r.FrameTimeouts, "heartbeat_missed": r.HeartbeatsMissed,
		"window": r.WindowExceeded, "max_buffered": r.BufferExceeded, "max_requests": r.Requests,
		"rate_slowed": r.RateSlowed, "rate": r.RateExceeded,
		"unauthorized": r.Unauthorized, "token_expired": r.TokenExpired, "not_allowed": r.NotAllowed,
		"tls": r.Handshake, "handshake_failed": r.HandshakesFailed, "bad_payload": r.BadPayloads, "out_of_place": r.OutOfPlace,
	}
	if datagrams, ok := l.socket.(*udp.Listener); ok {
		d := datagrams.Stats()
		reasons["datagram_foreign"] = s.Foreign + d.Strange
		reasons["datagram_overflow"] = d.Overflow + d.Backlog
		reasons["address_unproven"] = s.Unproven + d.Unproven
		reasons["address_challenged"] = s.Challenges
	}
	if l, ok := l.socket.(*quic.Listener); ok {
		q := l.Stats()
		reasons["quic_handshakes"] = q.Refused + q.Failed
		reasons["address_challenged"] = q.Challenged
	}
	return reasons
}
