package mqtt_test

import (
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mcp-edge/edge-agent/internal/upstream"
)

// mood is a broker's answer to a message: what Mosquitto can't be made to say.
type mood struct {
	mochi.HookBase
	server *mochi.Server
	// judge returns the reason of the PUBACK, or of the DISCONNECT if cut is set.
	judge func(topic string, n int64) (code packets.Code, cut bool)
	count atomic.Int64
}

var _ mochi.Hook = (*mood)(nil)

func (*mood) ID() string           { return "mood" }
func (*mood) Provides(b byte) bool { return b == mochi.OnPublish }

func (m *mood) OnPublish(c *mochi.Client, p packets.Packet) (packets.Packet, error) {
	code, cut := m.judge(p.TopicName, m.count.Add(1))
	switch {
	case cut:
		_ = m.server.DisconnectClient(c, code)
		return p, packets.ErrRejectPacket
	case code.Code >= 0x80:
		return p, code
	}
	return p, nil
}

func moodyBroker(t *testing.T, judge func(topic string, n int64) (packets.Code, bool)) (address string) {
	t.Helper()
	server := mochi.New(&mochi.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	tcp := listeners.NewTCP(listeners.Config{ID: "tcp", Address: "127.0.0.1:0"})
	for _, err := range []error{
		server.AddHook(new(auth.AllowHook), nil),
		server.AddHook(&mood{server: server, judge: judge}, nil),
		server.AddListener(tcp),
		server.Serve(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = server.Close() })
	return tcp.Address()
}

func TestAMessageBeyondTheQuotaIsSentAgain(t *testing.T) {
	address := moodyBroker(t, func(_ string, n int64) (packets.Code, bool) {
		if n%50 == 0 {
			return packets.ErrQuotaExceeded, false
		}
		return packets.CodeSuccess, false
	})
	s := subscribe(t, address)
	cfg := config()
	cfg.Window = 10
	u := run(t, address, cfg)
	send(t, u, "d", 1, 200, 100)
	waitUntil(t, "all have arrived", func() bool { d, _, _ := s.tally(); return d["d"] == 200 })
}

func TestAMessageThatEndsTheConnectionIsFoundAndRefused(t *testing.T) {
	address := moodyBroker(t, func(topic string, _ int64) (packets.Code, bool) {
		if strings.Contains(topic, "evil") {
			return packets.ErrPayloadFormatInvalid, true
		}
		return packets.CodeSuccess, false
	})
	u := run(t, address, config())
	batch := append(records("good", 1, 20), records("evil", 1, 1)...)
	err := u.Send(t.Context(), append(batch, records("good", 21, 40)...))
	if !errors.Is(err, upstream.ErrRefused) || !strings.Contains(err.Error(), "device evil") || !strings.Contains(err.Error(), "the payload is not allowed") {
		t.Errorf("got %v", err)
	}
	send(t, u, "good", 21, 40, 10)
}

func TestABrokerThatShutsDownBlamesNoMessage(t *testing.T) {
	address := moodyBroker(t, func(_ string, n int64) (packets.Code, bool) {
		if n%30 == 0 {
			return packets.ErrServerShuttingDown, true
		}
		return packets.CodeSuccess, false
	})
	s := subscribe(t, address)
	u := run(t, address, config())
	send(t, u, "d", 1, 50, 25)
	s.wantComplete(t, 50, "d")
}
