package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/netip"
	"time"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/dialin"
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/driver/text"
	"github.com/mcp-edge/edge-agent/internal/intake"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/quic"
	"github.com/mcp-edge/edge-agent/transport/serial"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// link is a [[link]] with its lane and its devices.
type link struct {
	name    string
	lane    *scheduler.Lane
	prepare prepare
	events  func() map[string]uint64 // what driver and transport have counted
	session func() *admin.Session    // nil: the protocol has none
	mute    func() (since time.Time, mute bool)
}

// dialer is what opens a link's line, and counts what happens on it.
type dialer struct {
	transport.Dialer
	log    *slog.Logger             // that says which link it is
	events func() map[string]uint64 // nil: nothing is counted
}

// buildDialer is the table of transports that a link may have.
func (a *Agent) buildDialer(c *config.Link) (dialer, error) {
	if c.Accept != nil {
		return a.buildDialin(c)
	}
	secure, err := a.clientTLS("link "+c.Name, c.TLS)
	if err != nil {
		return dialer{}, err
	}
	switch c.Transport {
	case "serial":
		d := serial.NewDialer(c.Address, c.Serial)
		if c.USB != nil {
			d = serial.NewUSBDialer(*c.USB, c.Serial)
		}
		return dialer{Dialer: d, events: func() map[string]uint64 { return serialEvents(d.Counters()) }}, nil
	case "tcp":
		return dialer{Dialer: a.tcp.Dialer(c.Address, secure)}, nil
	case "udp":
		datagrams := c.UDP
		datagrams.TLS = secure
		return dialer{Dialer: udp.NewDialer(c.Address, datagrams)}, nil
	case "quic":
		return dialer{Dialer: quic.NewDialer(c.Address, secure)}, nil
	}
	return dialer{}, fmt.Errorf("no transport %q", c.Transport)
}

// buildDialin is for a link whose device calls us.
func (a *Agent) buildDialin(c *config.Link) (dialer, error) {
	secure, err := a.serverTLS("link "+c.Name, c.Accept.TLS)
	if err != nil {
		return dialer{}, err
	}
	var remote netip.Addr
	if c.Accept.Remote != "" {
		if remote, err = netip.ParseAddr(c.Accept.Remote); err != nil {
			return dialer{}, err
		}
	}
	d := dialin.New(dialin.Config{
		Endpoint: c.Transport + " " + c.Address, Remote: remote, Log: a.log.With("link", c.Name),
		Listen: func(ctx context.Context, framers func() transport.Framer) (transport.Listener, error) {
			return listen(ctx, c.Transport, c.Address, c.UDP, framers, secure, nil)
		},
	})
	a.keep("calls of link "+c.Name, func(ctx context.Context) error {
		<-ctx.Done()
		return d.Close()
	})
	return dialer{Dialer: d, events: func() map[string]uint64 { return dialinEvents(d.Stats()) }}, nil
}

// buildLink is the table of drivers that a link may have.
func (a *Agent) buildLink(c *config.Link) (*link, error) {
	d, err := a.buildDialer(c)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", c.Name, err)
	}
	d.log = a.log.With("link", c.Name)
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
	lane, err := scheduler.NewLane(c.Name, line.Link, line.polls, a.sharing(c), a.shared, d.log)
	if err != nil {
		return nil, err
	}
	return &link{name: c.Name, lane: lane, prepare: line.prepare, session: line.session, mute: line.mute, events: together(line.events, d.events)}, nil
}

// together counts what both do; the second may be nil.
func together(a, b func() map[string]uint64) func() map[string]uint64 {
	if b == nil {
		return a
	}
	return func() map[string]uint64 {
		events := a()
		maps.Copy(events, b())
		return events
	}
}

// sharing is how the link's lane works. The lanes' phases are spread with the
// golden ratio, which keeps any number of them apart.
func (a *Agent) sharing(c *config.Link) scheduler.Config {
	cfg := c.Config
	_, cfg.Phase = math.Modf(float64(len(a.links)) / math.Phi)
	cfg.Passive = c.Accept != nil
	for _, d := range a.devicesOn(c.Name) {
		if d.Rate > 0 {
			if cfg.Rates == nil {
				cfg.Rates = make(map[string]float64)
			}
			cfg.Rates[d.ID] = d.Rate
		}
	}
	return cfg
}

// line is what a driver makes of a link.
type line struct {
	scheduler.Link
	polls   []scheduler.Poll
	prepare prepare
	events  func() map[string]uint64
	session func() *admin.Session // nil: the protocol has none
	// mute tells of a device that speaks by itself whether it has not for too long;
	// nil: the lane knows.
	mute func() (since time.Time, mute bool)
}

func (a *Agent) buildModbus(c *config.Link, d dialer) (line, error) {
	shared := c.Modbus
	shared.Transactions = c.Transactions
	l, err := modbus.NewLink(d.Dialer, shared, d.log)
	if err != nil {
		return line{}, err
	}
	made := line{Link: l, prepare: prepareModbus(l, a.devicesOn(c.Name)), events: func() map[string]uint64 { return modbusEvents(l.Counters()) }}
	for _, device := range a.devicesOn(c.Name) {
		for i := range device.Polls {
			p := &device.Polls[i]
			task, err := l.Poll(modbus.PollConfig{ID: device.ID, Name: p.Name, Device: device.Modbus, Points: p.Points}, a.sink(device.Durability, c.Durability), a.clock.Now)
			if err != nil {
				return line{}, err
			}
			made.polls = append(made.polls, poll(device, p, task))
		}
	}
	return made, nil
}

func (a *Agent) buildText(c *config.Link, d dialer) (line, error) {
	devices := a.devicesOn(c.Name)
	if len(devices) != 1 {
		return line{}, fmt.Errorf("%d text devices; lines don't say whose they are, so a link has one", len(devices))
	}
	l, err := text.NewLink(d.Dialer, devices[0].ID, devices[0].Text, a.pushed(devices[0], c.Durability), a.clock.Now, d.log)
	if err != nil {
		return line{}, err
	}
	return line{Link: l, prepare: prepareText, mute: l.Silent, events: func() map[string]uint64 { return textEvents(l.Counters()) }}, nil
}

func (a *Agent) buildMCP(c *config.Link, d dialer) (line, error) {
	link := mcp.LinkConfig{DialConfig: c.MCP, Name: c.Name, Agent: a.cfg.Agent.ID, Epoch: a.store.Epoch(), Serial: c.Transport == "serial"}
	if c.Auth != nil {
		link.Token = c.Auth.Token
	}
	if devices := a.devicesOn(c.Name); link.Serial && len(devices) == 1 {
		// Whoever is at the other end of a wire is known, HELLO or not.
		link.Anonymous = devices[0].ID
	}
	link.Level = a.level(c.Durability, a.devicesOn(c.Name))
	for _, device := range a.devicesOn(c.Name) {
		if device.Durability == "" {
			continue
		}
		if link.Sinks == nil {
			link.Sinks = make(map[string]mcp.Sink)
		}
		link.Sinks[device.ID] = a.sink(device.Durability)
	}
	l, err := mcp.NewLink(d.Dialer, link, a.store, a.sink(c.Durability), a.clock.Now, d.log)
	if err != nil {
		return line{}, err
	}
	made := line{
		Link: l, prepare: prepareMCP(l), events: func() map[string]uint64 { return mcpEvents(l.Stats()) },
		session: func() *admin.Session { return sessionOf(l.Stats()) },
	}
	for _, device := range a.devicesOn(c.Name) {
		for i := range device.Polls {
			p := &device.Polls[i]
			made.polls = append(made.polls, poll(device, p, l.Poll(device.ID, p.Name, p.PollConfig)))
		}
	}
	return made, nil
}

func poll(device *config.Device, p *config.Poll, task scheduler.Task) scheduler.Poll {
	return scheduler.Poll{Device: device.ID, Name: p.Name, Every: p.Every, Task: task}
}

// devicesOn lists the devices of a link, in the order of the file.
func (a *Agent) devicesOn(link string) []*config.Device { return a.onLink[link] }

// pushed is the sink of a device that speaks by itself; it is kept, so that
// status can tell what was lost.
func (a *Agent) pushed(device *config.Device, link string) *intake.Pushed {
	in, level := a.intake, durability(store.Delayed, device.Durability, link)
	if level == store.Memory {
		in = a.memory.intake
	}
	p := in.Pushed(device.ID, level == store.Delayed)
	a.sinks[device.ID] = p
	return p
}
