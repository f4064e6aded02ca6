package agent

import (
	"context"
	"fmt"

	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/driver/text"
	"github.com/mcp-edge/edge-agent/internal/intake"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/internal/upstream/file"
	"github.com/mcp-edge/edge-agent/internal/upstream/mqtt"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/serial"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// link is a [[link]] with its lane and its devices.
type link struct {
	name   string
	lane   *scheduler.Lane
	events func() map[string]uint64 // what the driver has counted
}

// route is a pair of [[route]] and [[upstream]].
type route struct {
	name     string
	upstream *destination
	pump     *pipeline.Pump
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
	for i := range a.cfg.Listens {
		l, err := a.buildListener(&a.cfg.Listens[i])
		if err != nil {
			return err
		}
		a.listeners = append(a.listeners, l)
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

// dialer is the table of transports that a link may have.
func dialer(c *config.Link) (transport.Dialer, error) {
	switch c.Transport {
	case "serial":
		return serial.NewDialer(c.Address, c.Serial), nil
	case "tcp":
		return tcp.NewDialer(c.Address, nil), nil
	}
	return nil, fmt.Errorf("no transport %q", c.Transport)
}

// buildLink is the table of drivers that a link may have.
func (a *Agent) buildLink(c *config.Link) (*link, error) {
	d, err := dialer(c)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", c.Name, err)
	}
	var line line
	switch c.Driver {
	case "modbus":
		line, err = a.buildModbus(c, d)
	case "text":
		line, err = a.buildText(c, d)
	case "mcp":
		line, err = a.buildMCP(c, d)
	default:
		err = fmt.Errorf("no driver %q", c.Driver)
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", c.Name, err)
	}
	lane, err := scheduler.NewLane(c.Name, line, line.polls, scheduler.Config{}, a.log)
	if err != nil {
		return nil, err
	}
	return &link{name: c.Name, lane: lane, events: line.events}, nil
}

// line is what a driver makes of a link.
type line struct {
	scheduler.Link
	polls  []scheduler.Poll
	events func() map[string]uint64
}

func (a *Agent) buildModbus(c *config.Link, d transport.Dialer) (line, error) {
	l, err := modbus.NewLink(d, c.Modbus, a.log.With("link", c.Name))
	if err != nil {
		return line{}, err
	}
	made := line{Link: l, events: func() map[string]uint64 { return modbusEvents(l.Counters()) }}
	for _, device := range a.devicesOn(c.Name) {
		for i := range device.Polls {
			p := &device.Polls[i]
			task, err := l.Poll(modbus.PollConfig{ID: device.ID, Name: p.Name, Device: device.Modbus, Points: p.Points}, a.intake.Polled(), a.clock.Now)
			if err != nil {
				return line{}, err
			}
			made.polls = append(made.polls, poll(c, device, p, task))
		}
	}
	return made, nil
}

func (a *Agent) buildText(c *config.Link, d transport.Dialer) (line, error) {
	devices := a.devicesOn(c.Name)
	if len(devices) != 1 {
		return line{}, fmt.Errorf("%d text devices; lines don't say whose they are, so a link has one", len(devices))
	}
	l, err := text.NewLink(d, devices[0].ID, devices[0].Text, a.pushed(devices[0].ID), a.clock.Now, a.log.With("link", c.Name))
	if err != nil {
		return line{}, err
	}
	return line{Link: l, events: func() map[string]uint64 { return textEvents(l.Counters()) }}, nil
}

func (a *Agent) buildMCP(c *config.Link, d transport.Dialer) (line, error) {
	link := mcp.LinkConfig{Name: c.Name, Agent: a.cfg.Agent.ID, Epoch: a.store.Epoch(), Serial: c.Transport == "serial"}
	if devices := a.devicesOn(c.Name); link.Serial && len(devices) == 1 {
		// Whoever is at the other end of a wire is known, HELLO or not.
		link.Anonymous = devices[0].ID
	}
	l, err := mcp.NewLink(d, link, a.store, a.intake.Polled(), a.clock.Now, a.log.With("link", c.Name))
	if err != nil {
		return line{}, err
	}
	made := line{Link: l, events: func() map[string]uint64 { return mcpEvents(l.Stats()) }}
	for _, device := range a.devicesOn(c.Name) {
		for i := range device.Polls {
			p := &device.Polls[i]
			made.polls = append(made.polls, poll(c, device, p, l.Poll(device.ID, p.Name, p.PollConfig)))
		}
	}
	return made, nil
}

func poll(c *config.Link, device *config.Device, p *config.Poll, task scheduler.Task) scheduler.Poll {
	return scheduler.Poll{Device: device.ID, Name: p.Name, Every: p.Every, Timeout: c.Timeout, Retries: c.RetryCount, Task: task}
}

func (a *Agent) devicesOn(linkName string) (list []*config.Device) {
	for i := range a.cfg.Devices {
		if a.cfg.Devices[i].Link == linkName {
			list = append(list, &a.cfg.Devices[i])
		}
	}
	return list
}

// pushed is the sink of a device that speaks by itself; it is kept, so that
// status can tell what was lost.
func (a *Agent) pushed(device string) *intake.Pushed {
	p := a.intake.Pushed(device)
	a.sinks[device] = p
	return p
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
	quarantine := a.quarantine()
	for i := range a.cfg.Routes {
		c := &a.cfg.Routes[i]
		for _, to := range c.To {
			r := &route{name: c.Name, upstream: upstreams[to]}
			whenFull := a.cfg.Store.WhenFull
			if own := a.upstreamConfig(to).WhenFull; own != "" {
				whenFull = own
			}
			cursor, err := a.store.Cursor(store.CursorConfig{
				Name: r.cursorName(), WhenFull: whenFull,
				Match: func(key store.SourceKey) bool { return takes(c.Match, key) },
			})
			if err != nil {
				return fmt.Errorf("route %s: %w", c.Name, err)
			}
			r.pump = pipeline.NewPump(r.cursorName(), a.cfg.Agent.ID, cursor, r.upstream, quarantine, a.log)
			a.routes = append(a.routes, r)
		}
	}
	return nil
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

// listener is a [[listen]] with its server.
type listener struct {
	name   string
	listen func(ctx context.Context) (transport.Listener, error)
	server *mcp.Server
	socket transport.Listener
}

func (a *Agent) buildListener(c *config.Listen) (*listener, error) {
	server, err := mcp.NewServer(mcp.ServerConfig{
		ListenConfig: c.ListenConfig, Name: c.Name, Agent: a.cfg.Agent.ID, Epoch: a.store.Epoch(), Remotes: a.remotes(c.Name),
	}, a.store, a.clock.Now, a.log.With("listener", c.Name))
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", c.Name, err)
	}
	return &listener{
		name: c.Name, server: server,
		listen: func(ctx context.Context) (transport.Listener, error) {
			return tcp.Listen(ctx, c.Address, server.Framer, nil)
		},
	}, nil
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

func (l *listener) open(ctx context.Context) (err error) {
	if l.socket, err = l.listen(ctx); err != nil {
		return fmt.Errorf("listener %s: %w", l.name, err)
	}
	return nil
}

func (l *listener) run(ctx context.Context) error { return l.server.Run(ctx, l.socket) }

func (l *listener) close() {
	if l.socket != nil {
		l.socket.Close()
	}
}
