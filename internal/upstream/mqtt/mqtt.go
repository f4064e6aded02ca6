// Package mqtt is the upstream that publishes records to an MQTT 5 broker, one
// message a record, with QoS 1: a record is delivered when the broker has said
// PUBACK.
//
// Messages are pipelined: up to a window of them wait for their PUBACK at a
// time. A connection that is lost is opened again for ever; then everything that
// was not acknowledged is sent again, in order. The broker keeps no session for
// the agent (Clean Start, session expiry 0), because the agent's queue is the
// memory; the stable client id makes a broker end the old connection before it
// reads from the new one, and so keeps the order across them.
package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/record"
)

// Upstream publishes to one broker. Run is called once, everything else may be
// called concurrently.
type Upstream struct {
	cfg     Config
	server  *url.URL
	topic   topic
	session *session
}

var _ upstream.Upstream = (*Upstream)(nil)

// New makes the upstream called name of the agent called agent, for the broker
// at address (see ParseAddress). It connects to nothing yet. cfg.Password is the
// password itself: whoever reads the configuration has resolved the reference.
func New(agent, name, address string, cfg Config, log *slog.Logger) (*Upstream, error) {
	host, err := ParseAddress(address)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: address: %w", name, err)
	}
	topic, err := parseTopic(cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: topic: %w", name, err)
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "edge-agent-" + agent + "-" + name
	}
	server := &url.URL{Scheme: "mqtt", Host: host}
	return &Upstream{cfg: cfg, server: server, topic: topic, session: newSession(server.String(), cfg, log)}, nil
}

// Run keeps the connection until ctx ends, and returns nil then.
func (u *Upstream) Run(ctx context.Context) error {
	manager, err := autopaho.NewConnection(ctx, u.clientConfig())
	if err != nil {
		return fmt.Errorf("mqtt %s: %w", u.server, err)
	}
	defer context.AfterFunc(ctx, u.session.close)()
	u.session.write()
	<-manager.Done()
	return nil
}

// Send returns nil when the broker has acknowledged every record of the batch.
// An error that wraps upstream.ErrRefused names the first record that the broker
// does not take; those before it, and some behind it, may have arrived.
func (u *Upstream) Send(ctx context.Context, batch []record.Record) error {
	d := &delivery{session: u.session, topic: u.topic, batch: batch, acked: make([]bool, len(batch)), left: len(batch)}
	return d.run(ctx)
}

// Status may be called at any time.
func (u *Upstream) Status() upstream.Status { return u.session.status() }

func (u *Upstream) clientConfig() autopaho.ClientConfig {
	s := u.session
	return autopaho.ClientConfig{
		ServerUrls:       []*url.URL{u.server},
		KeepAlive:        uint16(u.cfg.KeepAlive / time.Second),
		ConnectTimeout:   u.cfg.ConnectTimeout,
		ReconnectBackoff: func(int) time.Duration { return s.pause() },
		ConnectUsername:  u.cfg.Username,
		ConnectPassword:  []byte(u.cfg.Password),
		AttemptConnection: func(ctx context.Context, _ autopaho.ClientConfig, server *url.URL) (net.Conn, error) {
			return dial(ctx, server.Host, u.cfg.ConnectTimeout)
		},
		ConnectPacketBuilder: func(c *paho.Connect, _ *url.URL) (*paho.Connect, error) {
			// paho makes room for as many incoming messages as it announces,
			// half a megabyte by default; none come.
			receiveMaximum := uint16(16)
			c.CleanStart = true
			c.Properties = &paho.ConnectProperties{ReceiveMaximum: &receiveMaximum}
			return c, nil
		},
		OnConnectError: func(err error) { s.failed(u.connectReason(err)) },
		ClientConfig: paho.ClientConfig{
			ClientID:      u.cfg.ClientID,
			Session:       s,
			PacketTimeout: u.cfg.ConnectTimeout,
			OnClientError: s.lost,
		},
	}
}

// connectReason says why an attempt to connect failed.
func (u *Upstream) connectReason(err error) string {
	var refused *autopaho.ConnackError
	switch {
	case errors.As(err, &refused) && refused.ReasonCode >= 0x80:
		return "the broker refused the connection: " + reasonText(refused.ReasonCode, refused.Reason)
	case errors.As(err, &refused):
		return refused.Err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("the broker did not answer within %v", u.cfg.ConnectTimeout)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Error()
	}
	return err.Error()
}
