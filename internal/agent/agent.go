// Package agent puts the parts together: it makes them from a checked
// configuration, starts them from the disk outward, and stops them the other
// way round. It knows no protocol and moves no bytes.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/clock"
	"github.com/mcp-edge/edge-agent/internal/command"
	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/intake"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// How long each stage may take to stop, and how long the pumps may go on
// delivering what is left.
const (
	stopSources   = 8 * time.Second // a lane finishes its round within 5 s
	stopCommands  = time.Second
	stopDrain     = 5 * time.Second
	stopUpstreams = 5 * time.Second
	stopStore     = 20 * time.Second
	stopAdmin     = 2 * time.Second
)

// Options are what main adds to the configuration.
type Options struct {
	Version string
	// Level is the level of Log, for changing it while running; may be nil.
	Level *slog.LevelVar
	Log   *slog.Logger
	// Ready, when set, is called once everything is started.
	Ready func()
}

// Agent is one edge agent. New opens nothing.
type Agent struct {
	cfg     *config.File
	opts    Options
	log     *slog.Logger
	clock   *clock.Clock
	offsets *clock.Offsets
	started time.Time

	store     *store.Store
	intake    *intake.Intake
	memory    *volatile // nil: nothing has the level "memory"
	shared    *scheduler.Shared
	tcp       *tcp.Dialers
	links     []*link
	onLink    map[string][]*config.Device
	listeners []*listener
	routes    []*route
	upstreams []*destination
	commands  *command.Room
	retrier   *pipeline.Retrier
	admin     *admin.Server

	certificates []certificate
	keepers      []part // what runs beside links and listeners, such as looking after certificates

	sinks   map[string]*intake.Pushed // by device
	running atomic.Bool               // everything is started and nothing is stopping
	stages  []*stage                  // set before admin serves
}

// New makes an agent of a configuration that has no problems.
func New(cfg *config.File, opts Options) *Agent {
	a := &Agent{
		cfg: cfg, opts: opts, log: opts.Log, clock: clock.New(), shared: scheduler.NewShared(cfg.Scheduler), tcp: tcp.NewDialers(),
		onLink: make(map[string][]*config.Device), sinks: make(map[string]*intake.Pushed),
	}
	for i := range cfg.Devices {
		d := &cfg.Devices[i]
		a.onLink[d.Link] = append(a.onLink[d.Link], d)
	}
	return a
}

// Run starts everything, works until ctx ends, and stops in good order: then it
// returns nil. It fails when something can't be opened that it can't do without:
// the data directory, the queue, a port to listen on.
func (a *Agent) Run(ctx context.Context) (err error) {
	a.started = time.Now()
	defer func() {
		if a.store != nil {
			err = errors.Join(err, a.store.Close())
		}
	}()
	sweep()
	token, err := a.openData()
	if err != nil {
		return err
	}
	if err := a.build(); err != nil {
		return err
	}
	if err := a.listen(ctx, token); err != nil {
		return err
	}
	stop := a.start()
	a.running.Store(true)
	a.log.Info("running", "agent", a.cfg.Agent.ID, "version", a.opts.Version, "epoch", a.store.Epoch(),
		"links", len(a.links), "listeners", len(a.listeners), "routes", len(a.routes), "admin", a.admin.Address())
	if a.opts.Ready != nil {
		a.opts.Ready()
	}
	<-ctx.Done()
	a.running.Store(false)
	a.log.Info("stopping")
	stop()
	a.log.Info("stopped")
	return nil
}

// openData opens what the agent can't do without.
func (a *Agent) openData() (token string, err error) {
	dir := a.cfg.Agent.DataDir
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("the data directory can't be made: %w; make it, or let the agent's user write there, or set [agent] data_dir", err)
	}
	queue := a.cfg.Store
	queue.Clock = storeClock{command.NewClock(a.clock)}
	if a.store, err = store.Open(dir, queue, a.log); err != nil {
		return "", err
	}
	a.intake = intake.New(a.store, a.log)
	a.memory = a.openMemory()
	a.offsets = clock.NewOffsets(a.clock, clockOffsets{a.store.Mailbox()}, a.log)
	return admin.LoadToken(dir)
}

// storeClock is the machine's clock as the queue wants it.
type storeClock struct{ *command.SystemClock }

func (c storeClock) Now() store.Instant { return store.Instant(c.SystemClock.Now()) }

// listen takes all ports before anything runs, so that a port in use is an
// error at start.
func (a *Agent) listen(ctx context.Context, token string) error {
	for _, l := range a.listeners {
		if err := l.open(ctx); err != nil {
			a.closeListeners()
			return err
		}
	}
	a.admin = admin.New(a.cfg.Admin, a, a.commands, token, a.log)
	if err := a.admin.Listen(ctx); err != nil {
		a.closeListeners()
		return err
	}
	return nil
}

func (a *Agent) closeListeners() {
	for _, l := range a.listeners {
		l.close()
	}
}

// start starts the stages, from the disk outward, and returns what stops them.
func (a *Agent) start() (stop func()) {
	var outward []part   // what takes records out
	sources := a.keepers // what brings them in
	for _, l := range a.links {
		sources = append(sources, part{"link " + l.name, l.lane.Run})
	}
	for _, l := range a.listeners {
		sources = append(sources, part{"listener " + l.name, l.run})
	}
	for _, u := range a.upstreams {
		outward = append(outward, part{"upstream " + u.name, u.Run})
	}
	for _, r := range a.routes {
		outward = append(outward, part{"route " + r.cursorName(), r.pump.Run}, part{"replay of route " + r.cursorName(), r.replay.Run})
		if r.memory != nil {
			outward = append(outward, part{"route " + r.cursorName() + " (memory)", r.memory.Run})
		}
	}
	outward = append(outward, part{"quarantine", a.retrier.Run})
	queue := start("store", a.log, []part{{"store", a.store.Run}, {"clock", a.offsets.Run}})
	delivery := start("upstreams", a.log, outward)
	orders := start("commands", a.log, []part{{"commands", a.commands.Run}})
	collection := start("sources", a.log, sources)
	a.stages = []*stage{queue, delivery, orders, collection}
	office := start("admin", a.log, []part{{"admin", a.admin.Run}, {"memory", tend}})
	return func() {
		collection.stop(stopSources)
		orders.stop(stopCommands)
		a.drain(stopDrain)
		delivery.stop(stopUpstreams)
		a.memory.close()
		queue.stop(stopStore)
		office.stop(stopAdmin)
	}
}

// drain lets the pumps deliver what is left, for as long as that goes on. What
// is left after that is on disk and goes out at the next start.
func (a *Agent) drain(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, sink := range a.sinks {
		sink.Flush(ctx)
	}
	if err := a.store.Flush(ctx); err != nil {
		a.log.Warn("what was read last is not on disk yet", "error", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for a.deliverable() > 0 {
		select {
		case <-ctx.Done():
			a.log.Info("records are left for the next start", "records", a.deliverable())
			return
		case <-tick.C:
		}
	}
}

// deliverable is how many records wait for upstreams that can take them.
func (a *Agent) deliverable() (n uint64) {
	lag := make(map[string]uint64)
	for _, c := range a.store.Stats().Cursors {
		lag[c.Name] = c.Lag
	}
	inMemory := a.memory.lag()
	for _, r := range a.routes {
		if r.upstream.Status().Connected {
			n += lag[r.cursorName()] + inMemory[r.cursorName()]
		}
	}
	return n
}
