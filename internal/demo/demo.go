// Package demo shows the agent's main job in one process: a simulated plant, an
// MQTT broker and the agent between them. Midway the broker is cut off for some
// seconds. At the end it counts what the broker's subscriber received against
// what the devices sent.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/mcp-edge/edge-agent/internal/agent"
	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// Config of a demo.
type Config struct {
	Length  time.Duration // how long devices send; at least 3 s
	Version string
	Out     io.Writer    // the screen
	Log     *slog.Logger // the agent's
}

// Demo is one run.
type Demo struct {
	cfg    Config
	ledger *ledger
	screen *screen
	start  time.Time

	plant  *plant
	broker *broker
	cable  *proxy
	agent  *agent.Agent
	cut    bool
	stage  string
	seen   struct { // of the agent, when it was asked last
		connected bool
		queue     uint64
		states    map[string]string
	}
}

// MinLength is the shortest demo that has room for the cut.
const MinLength = 3 * time.Second

// Run does it all and returns the count. It fails when something could not be
// started; loss is not an error but in the report.
func Run(ctx context.Context, cfg Config) (report Report, err error) {
	dir, err := os.MkdirTemp("", "edge-agent-demo-")
	if err != nil {
		return Report{}, fmt.Errorf("demo: %w", err)
	}
	defer os.RemoveAll(dir)
	cfg.Length = max(cfg.Length, MinLength)
	l := newLedger()
	d := &Demo{cfg: cfg, ledger: l, screen: newScreen(cfg.Out)}

	if d.broker, err = newBroker(ctx, l); err != nil {
		return Report{}, err
	}
	defer d.broker.close()
	if d.cable, err = newProxy(ctx, d.broker.address()); err != nil {
		return Report{}, err
	}
	machines, err := freeAddress(ctx)
	if err != nil {
		return Report{}, err
	}
	if d.plant, err = newPlant(ctx, l, machines); err != nil {
		return Report{}, err
	}
	if d.agent, err = d.newAgent(filepath.Join(dir, "data"), machines); err != nil {
		return Report{}, err
	}
	return d.run(ctx)
}

// newAgent makes the agent from a configuration as a user would write it.
func (d *Demo) newAgent(dataDir, machines string) (*agent.Agent, error) {
	text := fmt.Sprintf(plantConfig, dataDir, d.plant.bus.Path(), baud, d.plant.plc.Addr(), d.plant.scale.path, machines, d.cable.address())
	file, problems := config.Parse("demo.toml", text, func(string) (string, bool) { return "", false })
	if problems.Fatal() {
		return nil, fmt.Errorf("demo: its own configuration is wrong:\n%s", problems)
	}
	return agent.New(file, agent.Options{Version: d.cfg.Version, Log: d.cfg.Log}), nil
}

// run lets the devices send for the length of the demo, cuts the cable in the
// middle third, and stops everything in order, so that what was sent can arrive.
func (d *Demo) run(ctx context.Context) (Report, error) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	cableDone, agentDone := make(chan error, 1), make(chan struct{})
	agentCtx, stopAgent := context.WithCancel(work)
	defer stopAgent()
	d.plant.start()
	go func() { cableDone <- d.cable.run(work) }()
	var agentErr error
	go func() {
		defer close(agentDone)
		agentErr = d.agent.Run(agentCtx)
	}()

	err := d.awaitLinks(ctx, agentDone)
	d.start = time.Now()
	if err == nil && ctx.Err() == nil {
		d.plant.speak()
		err = d.watch(ctx, agentDone)
		d.mend()
		d.stage = "the last ones arrive"
		quiet, stop := context.WithTimeout(work, 10*time.Second)
		d.plant.hush(quiet)
		d.settle(quiet)
		d.look()
		stop()
	}
	stopAgent()
	<-agentDone
	d.plant.stop()
	cancel()
	err = errors.Join(err, agentErr, <-cableDone)
	d.stage = "done"
	d.show()
	report := d.ledger.report()
	if report.Lost > 0 {
		d.cfg.Log.Error("records are lost", "some", d.ledger.missing(10))
	}
	return report, err
}

// awaitLinks waits until the agent has opened all its links.
func (d *Demo) awaitLinks(ctx context.Context, agentDone <-chan struct{}) error {
	limit := time.NewTimer(15 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		up := 0
		for _, l := range d.agent.State().Links {
			if l.State == scheduler.Up {
				up++
			}
		}
		if up == 3 {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("demo: the agent has opened %d of its 3 links after 15 s", up)
		case <-agentDone:
			return errors.New("demo: the agent ended")
		case <-ctx.Done():
			return nil
		}
	}
}

// watch shows what happens until the time is over.
func (d *Demo) watch(ctx context.Context, agentDone <-chan struct{}) error {
	third := d.cfg.Length / 3
	outage := min(third, 10*time.Second)
	steps := []struct {
		after time.Duration
		do    func()
	}{
		{0, func() { d.stage = "all is well" }},
		{third, func() { d.cut = true; d.stage = "the broker is cut off"; d.cable.setCut(true) }},
		{third + outage, d.mend},
		{d.cfg.Length, nil},
	}
	tick := time.NewTicker(d.interval())
	defer tick.Stop()
	for {
		for len(steps) > 0 && time.Since(d.start) >= steps[0].after {
			if steps[0].do == nil {
				return nil
			}
			steps[0].do()
			steps = steps[1:]
		}
		select {
		case <-tick.C:
			d.show()
		case <-agentDone:
			return errors.New("demo: the agent ended")
		case <-ctx.Done(): // the user has seen enough: end in good order
			return nil
		}
	}
}

func (d *Demo) mend() {
	if d.cut {
		d.cut = false
		d.stage = "the broker is back"
		d.cable.setCut(false)
	}
}

// settle waits until what the devices that speak by themselves have sent has
// arrived, or ctx ends. The slaves go on answering until the agent stops asking.
func (d *Demo) settle(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		arrived := true
		for _, name := range d.plant.speakers() {
			sent, received := d.ledger.counts(name)
			arrived = arrived && sent == received
		}
		if arrived {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (d *Demo) interval() time.Duration {
	if d.screen.terminal {
		return 200 * time.Millisecond
	}
	return time.Second
}

func (d *Demo) show() {
	v := view{elapsed: min(time.Since(d.start), d.cfg.Length), length: d.cfg.Length, cut: d.cut, stage: d.stage, report: d.ledger.report()}
	d.look()
	v.queue, v.connected = d.seen.queue, d.seen.connected
	for _, shown := range shownDevices() {
		shown.state = d.seen.states[shown.name]
		shown.sent, shown.received = d.ledger.counts(shown.name)
		v.lines = append(v.lines, shown)
	}
	d.screen.show(v)
}

// look asks the agent how it is. One that has stopped has nothing more to say:
// then the last word stands.
func (d *Demo) look() {
	st := d.agent.State()
	if len(st.Upstreams) == 0 {
		return
	}
	d.seen.connected, d.seen.queue = st.Upstreams[0].Connected, 0
	for _, c := range st.Store.Cursors {
		d.seen.queue += c.Lag
	}
	d.seen.states = make(map[string]string)
	for _, device := range d.agent.Devices() {
		d.seen.states[device.ID] = device.State
	}
}

// freeAddress is a loopback address that nobody listened on a moment ago.
func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("demo: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// number reads the device's own number out of a delivered record.
func number(payload []byte) (device string, n uint64, ok bool) {
	var r struct {
		Device string `json:"device"`
		Values struct {
			N *uint64 `json:"n"`
		} `json:"values"`
	}
	if json.Unmarshal(payload, &r) != nil || r.Values.N == nil {
		return "", 0, false
	}
	return r.Device, *r.Values.N, true
}
