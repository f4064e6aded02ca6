package agent

import (
	"cmp"
	"context"
	"slices"

	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/intake"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// volatile is the queue of what has the level "memory". A nil one is empty.
type volatile struct {
	ring   *store.Ring
	intake *intake.Intake
}

// openMemory makes it if anything in the configuration asks for it.
func (a *Agent) openMemory() *volatile {
	asks := func(level string) bool { return store.Durability(level) == store.Memory }
	if !slices.ContainsFunc(a.cfg.Links, func(l config.Link) bool { return asks(l.Durability) }) &&
		!slices.ContainsFunc(a.cfg.Listens, func(l config.Listen) bool { return asks(l.Durability) }) &&
		!slices.ContainsFunc(a.cfg.Devices, func(d config.Device) bool { return asks(d.Durability) }) {
		return nil
	}
	ring := store.NewRing(a.cfg.Store.MemorySize, a.log)
	return &volatile{ring: ring, intake: intake.New(ring, a.log)}
}

func (m *volatile) close() {
	if m != nil {
		m.ring.Close()
	}
}

// lag is what is to be delivered, by cursor.
func (m *volatile) lag() map[string]uint64 {
	lag := make(map[string]uint64)
	if m != nil {
		for _, c := range m.ring.Stats().Cursors {
			lag[c.Name] = c.Lag
		}
	}
	return lag
}

func (m *volatile) devices() []store.DeviceStats {
	if m == nil {
		return nil
	}
	return m.ring.Devices()
}

// durability is the first level that is set, of the device and what it is on.
func durability(otherwise store.Durability, set ...string) store.Durability {
	return store.Durability(cmp.Or(cmp.Or(set...), string(otherwise)))
}

// sink is what drivers hand readings to that they asked for.
type sink interface {
	Offer(r record.Record) bool
	Deliver(ctx context.Context, r record.Record) error
}

// sink is that of a level.
func (a *Agent) sink(set ...string) sink {
	switch durability(store.Delayed, set...) {
	case store.Sync:
		return a.intake.Synced()
	case store.Memory:
		return a.memory.intake.Polled()
	case store.Delayed:
	}
	return a.intake.Polled()
}

// level tells where what MCP peers publish goes: by the level of the device that a
// peer is known as, or by that of the listener or link. It is nil if all is "sync".
func (a *Agent) level(shared string, devices []*config.Device) mcp.Level {
	var levels map[string]store.Durability
	for _, d := range devices {
		if d.Durability != "" {
			if levels == nil {
				levels = make(map[string]store.Durability)
			}
			levels[d.ID] = store.Durability(d.Durability)
		}
	}
	if shared == "" && levels == nil {
		return nil
	}
	return func(sender string) (mcp.Queue, bool) {
		level := cmp.Or(levels[sender], durability(store.Sync, shared))
		if level == store.Memory {
			return a.memory.ring, false
		}
		return a.store, level == store.Delayed
	}
}
