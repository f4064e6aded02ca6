package agent

import (
	"log/slog"
	"testing"

	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/intake"
	"github.com/mcp-edge/edge-agent/store"
)

func TestTheDevicesLevelOfDurabilityGoesBeforeThatOfItsLineAndBothBeforeTheDefault(t *testing.T) {
	queue, err := store.Open(t.TempDir(), store.Config{MaxSize: 1 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close()
	a := &Agent{
		store: queue, intake: intake.New(queue, slog.New(slog.DiscardHandler)), log: slog.New(slog.DiscardHandler),
		cfg: &config.File{Store: store.Config{MemorySize: 1 << 20}, Devices: []config.Device{{ID: "volatile", Durability: "memory"}, {ID: "patient", Durability: "delayed"}, {ID: "plain"}}},
	}
	a.memory = a.openMemory()
	devices := []*config.Device{&a.cfg.Devices[0], &a.cfg.Devices[1], &a.cfg.Devices[2]}
	for _, c := range []struct {
		shared, sender string
		memory, delay  bool
	}{
		{"", "volatile", true, false},
		{"", "patient", false, true},
		{"", "plain", false, false},
		{"", "unknown", false, false},
		{"memory", "plain", true, false},
		{"memory", "patient", false, true},
		{"memory", "unknown", true, false},
		{"delayed", "unknown", false, true},
	} {
		q, delay := a.level(c.shared, devices)(c.sender)
		if (q != queue) != c.memory || delay != c.delay {
			t.Errorf("%+v: %T, delay %v", c, q, delay)
		}
	}
	if _, synced := a.sink("sync", "memory").(intake.Synced); !synced {
		t.Error("a poll's level is not its device's")
	}
	if p, polled := a.sink("", "").(intake.Polled); !polled || p != a.intake.Polled() {
		t.Error("a poll is not delayed unless it says so")
	}
	if p := a.sink("", "memory"); p != a.memory.intake.Polled() {
		t.Error("a poll's level is not its link's")
	}
	a.cfg.Devices = nil
	if a.openMemory() != nil {
		t.Error("there is a queue in memory that nobody asked for")
	}
}
