package agent

import (
	"cmp"
	"fmt"
	"path/filepath"

	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/internal/upstream/file"
	"github.com/mcp-edge/edge-agent/internal/upstream/mqtt"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// route is a pair of [[route]] and [[upstream]].
type route struct {
	name     string
	upstream *destination
	pump     *pipeline.Pump
	replay   *pipeline.Replayer
	memory   *pipeline.Pump // of records that are in memory only; nil: there are none
}

// cursorName is under which name the queue keeps the pair's place.
func (r *route) cursorName() string { return r.name + "/" + r.upstream.name }

// destination is an [[upstream]].
type destination struct {
	upstream.Upstream
	name string
	kind string
}

// build makes every part that the configuration asks for; nothing runs yet.
func (a *Agent) build() error {
	for i := range a.cfg.Links {
		l, err := a.buildLink(&a.cfg.Links[i])
		if err != nil {
			return err
		}
		a.links = append(a.links, l)
	}
	a.cfg.Links = nil // what was made of them has what it needs, and there may be ten thousand
	for i := range a.cfg.Listens {
		l, err := a.buildListener(&a.cfg.Listens[i])
		if err != nil {
			return err
		}
		a.listeners = append(a.listeners, l)
	}
	if err := a.buildCommands(); err != nil {
		return err
	}
	byName := make(map[string]*destination)
	for i := range a.cfg.Upstreams {
		u := &a.cfg.Upstreams[i]
		up, err := a.buildUpstream(u)
		if err != nil {
			return fmt.Errorf("upstream %s: %w", u.Name, err)
		}
		d := &destination{Upstream: up, name: u.Name, kind: u.Kind}
		byName[u.Name] = d
		a.upstreams = append(a.upstreams, d)
	}
	return a.buildRoutes(byName)
}

// buildUpstream is the table of kinds of upstream.
func (a *Agent) buildUpstream(c *config.Upstream) (upstream.Upstream, error) {
	log := a.log.With("upstream", c.Name)
	switch c.Kind {
	case "file":
		return file.New(c.File, log), nil
	case "mqtt":
		return mqtt.New(a.cfg.Agent.ID, c.Name, c.Endpoints[0].Address, c.MQTT, log)
	}
	return nil, fmt.Errorf("no kind %q", c.Kind)
}

func (a *Agent) buildRoutes(upstreams map[string]*destination) error {
	quarantine := pipeline.NewQuarantine(filepath.Join(a.cfg.Agent.DataDir, pipeline.QuarantineName))
	a.retrier = pipeline.NewRetrier(quarantine, a.log)
	for i := range a.cfg.Routes {
		c := &a.cfg.Routes[i]
		for _, to := range c.To {
			r := &route{name: c.Name, upstream: upstreams[to]}
			cursor, err := a.openCursor(r, c.Match)
			if err != nil {
				return fmt.Errorf("route %s: %w", c.Name, err)
			}
			r.pump = pipeline.NewPump(r.cursorName(), a.cfg.Agent.ID, cursor, r.upstream, quarantine, a.offsets, a.log)
			r.replay = pipeline.NewReplayer(r.pump, a.store, cursor, func(key store.SourceKey) bool { return takes(c.Match, key) })
			a.retrier.Route(r.cursorName(), r.upstream)
			if a.memory != nil {
				cursor := a.memory.ring.Cursor(store.CursorConfig{Name: r.cursorName(), Match: func(key store.SourceKey) bool { return takes(c.Match, key) }})
				r.memory = pipeline.NewPump(r.cursorName(), a.cfg.Agent.ID, cursor, r.upstream, quarantine, a.offsets, a.log)
			}
			a.routes = append(a.routes, r)
		}
	}
	return nil
}

// openCursor opens the pair's place in the queue.
func (a *Agent) openCursor(r *route, match config.Match) (*store.Cursor, error) {
	own := a.upstreamConfig(r.upstream.name)
	start, err := store.ParseStart(own.Start)
	if err != nil {
		return nil, err
	}
	return a.store.Cursor(store.CursorConfig{
		Name: r.cursorName(), WhenFull: cmp.Or(own.WhenFull, a.cfg.Store.WhenFull), MaxAge: own.MaxAge, Start: start,
		Match: func(key store.SourceKey) bool { return takes(match, key) },
	})
}

func (a *Agent) upstreamConfig(name string) *config.Upstream {
	for i := range a.cfg.Upstreams {
		if a.cfg.Upstreams[i].Name == name {
			return &a.cfg.Upstreams[i]
		}
	}
	return new(config.Upstream)
}

// takes tells whether a route wants the records of a source. What is announced
// as missing goes wherever the device's records go.
func takes(m config.Match, key store.SourceKey) bool {
	return m.Device.Match(key.Device) && (key.Stream == record.GapStream || m.Stream.Match(key.Stream))
}
