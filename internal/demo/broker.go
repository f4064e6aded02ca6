package demo

import (
	"context"
	"fmt"
	"log/slog"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// broker is an MQTT broker in this process, with the subscriber that counts.
type broker struct {
	server *mqtt.Server
	listen string
}

func newBroker(ctx context.Context, l *ledger) (*broker, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	b := &broker{listen: address}
	b.server = mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	if err := b.server.AddHook(new(auth.AllowHook), nil); err != nil {
		return nil, fmt.Errorf("demo: broker: %w", err)
	}
	if err := b.server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: address})); err != nil {
		return nil, fmt.Errorf("demo: broker: %w", err)
	}
	if err := b.server.Serve(); err != nil {
		return nil, fmt.Errorf("demo: broker: %w", err)
	}
	count := func(_ *mqtt.Client, _ packets.Subscription, p packets.Packet) {
		if device, n, ok := number(p.Payload); ok {
			l.received(device, n)
		}
	}
	if err := b.server.Subscribe("edge/#", 1, count); err != nil {
		return nil, fmt.Errorf("demo: broker: %w", err)
	}
	return b, nil
}

func (b *broker) address() string { return b.listen }

func (b *broker) close() { _ = b.server.Close() } // nothing depends on it any more
