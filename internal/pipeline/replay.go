package pipeline

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

// Browser goes through what the queue holds; store.Store is one.
type Browser interface {
	Browse(ctx context.Context, q store.Query) iter.Seq2[store.Item, error]
}

// Place tells up to where a pump has delivered; store.Cursor does.
type Place interface {
	Acked() uint64
}

// Bounds of a replay.
const (
	DefaultReplayRate = 1000 // records a second
	MaxReplayRate     = 100_000

	replayBatchRecords = 512
	replayBatchBytes   = 512 << 10
)

// ErrReplaying is returned while the replay before is under way.
var ErrReplaying = errors.New("a replay is under way")

// Replay asks for what was delivered in a time to be delivered again.
type Replay struct {
	Since, Until time.Time // of the records, the second not inclusive; zero: no bound
	Rate         int       // records a second; 0: DefaultReplayRate

	// Match tells which sources, of those that the route takes; nil: all.
	Match func(store.SourceKey) bool
}

// ReplayStatus is what an operator sees of a pair's last replay since the start.
type ReplayStatus struct {
	State    string    `json:"state"` // "running", "done" or "stopped"
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	Rate     int       `json:"rate"`             // records a second at most
	Sent     uint64    `json:"sent"`             // records that the upstream has confirmed again
	Position uint64    `json:"position"`         // in the queue's log, up to which it has got
	To       uint64    `json:"to"`               // where it ends
	Reached  time.Time `json:"reached,omitzero"` // time of the record sent last
	Reason   string    `json:"reason,omitempty"` // what is tried again, and why
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
}

// Replayer hands records that a pair of route and upstream has delivered to that
// upstream again, marked as resent, in order, beside the live ones and at a bounded
// rate. They are what the queue still has: see keep of the store. What it loses
// meanwhile is left out. One replay is under way at a time.
//
// A replay ends with the agent and is not gone on with after a restart: the log says
// then how far it got.
type Replayer struct {
	queue  Browser
	place  Place
	takes  func(store.SourceKey) bool
	pump   *Pump // sends; it has no cursor
	log    *slog.Logger
	orders chan Replay
	bodies []byte // of the batch

	mu     sync.Mutex
	status ReplayStatus       // State is empty before the first one
	stop   context.CancelFunc // of the one under way
}

// NewReplayer makes a replayer for the pair that pump serves; takes tells what its
// route takes. It starts nothing.
func NewReplayer(pump *Pump, queue Browser, place Place, takes func(store.SourceKey) bool) *Replayer {
	again := &Pump{
		name: pump.name, agent: pump.agent, upstream: pump.upstream, quarantine: pump.quarantine, times: pump.times, log: pump.log, resent: true,
	}
	return &Replayer{queue: queue, place: place, takes: takes, pump: again, log: pump.log, orders: make(chan Replay, 1)}
}

// Start begins a replay, or fails with ErrReplaying. Run must be running.
func (r *Replayer) Start(order Replay) error {
	if order.Rate <= 0 {
		order.Rate = DefaultReplayRate
	}
	order.Rate = min(order.Rate, MaxReplayRate)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.State == "running" {
		return ErrReplaying
	}
	r.status = ReplayStatus{
		State: "running", Since: order.Since, Until: order.Until, Rate: order.Rate, To: r.place.Acked(), Started: time.Now().UTC(),
	}
	r.orders <- order // there is room: none was under way
	return nil
}

// Stop ends the replay under way, if there is one.
func (r *Replayer) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		r.stop()
	}
}

// Status may be called at any time; its State is empty if there was none.
func (r *Replayer) Status() ReplayStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	if s.State == "running" {
		s.Reason = r.pump.Status().Reason
	}
	return s
}

// Run does what Start asks for until ctx ends, and returns nil then.
func (r *Replayer) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case order := <-r.orders:
			r.run(ctx, order)
		}
	}
}

func (r *Replayer) run(ctx context.Context, order Replay) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.pump.note(func(s *Status) { *s = Status{} })
	r.mu.Lock()
	r.stop = cancel
	s := r.status
	r.mu.Unlock()
	r.log.Info("replay begins", "since", s.Since, "until", s.Until, "records_a_second", s.Rate)
	err := r.replay(ctx, order, s.To)
	r.mu.Lock()
	r.stop = nil
	r.status.Ended, r.status.State = time.Now().UTC(), "done"
	if err != nil {
		r.status.State, r.status.Reason = "stopped", err.Error()
	}
	s = r.status
	r.mu.Unlock()
	if err != nil {
		r.log.Warn("replay stopped; start it again from where it got to", "sent", s.Sent, "reached", s.Reached, "error", err)
		return
	}
	r.log.Info("replay done", "sent", s.Sent)
}

// replay goes through the queue up to where the pump had delivered when it was asked
// for: what is behind that goes out anyway.
func (r *Replayer) replay(ctx context.Context, order Replay, to uint64) error {
	if to == 0 {
		return nil
	}
	query := store.Query{
		To: to, Since: order.Since, Until: order.Until,
		Match: func(key store.SourceKey) bool {
			return !key.NameLost() && r.takes(key) && (order.Match == nil || order.Match(key))
		},
		Progress: func(position uint64) { r.note(func(s *ReplayStatus) { s.Position = position }) },
	}
	most := min(replayBatchRecords, max(order.Rate/4, 1))
	r.pump.items, r.bodies = r.pump.items[:0], r.bodies[:0]
	for item, err := range r.queue.Browse(ctx, query) {
		if err != nil {
			return err
		}
		r.keep(item)
		if len(r.pump.items) >= most || len(r.bodies) >= replayBatchBytes {
			if err := r.send(ctx, order.Rate); err != nil {
				return err
			}
		}
	}
	return r.send(ctx, order.Rate)
}

// keep copies what is valid until the next item only. A buffer that is outgrown
// stays with the items that are in it.
func (r *Replayer) keep(item store.Item) {
	at := len(r.bodies)
	r.bodies = append(r.bodies, item.Body...)
	item.Body = r.bodies[at:len(r.bodies):len(r.bodies)]
	r.pump.items = append(r.pump.items, item)
}

// send delivers the batch, and waits so that the rate is kept.
func (r *Replayer) send(ctx context.Context, rate int) error {
	items := r.pump.items
	if len(items) == 0 {
		return ctx.Err()
	}
	r.pump.deliver(ctx, r.pump.decode(ctx))
	if err := ctx.Err(); err != nil {
		return err
	}
	sent := r.pump.Status().Sent
	r.note(func(s *ReplayStatus) {
		s.Sent, s.Position, s.Reached = sent, items[len(items)-1].Position, items[len(items)-1].Time
	})
	r.pump.items, r.bodies = items[:0], r.bodies[:0]
	if !sleep(ctx, time.Duration(len(items))*time.Second/time.Duration(rate)) {
		return ctx.Err()
	}
	return nil
}

func (r *Replayer) note(change func(*ReplayStatus)) {
	r.mu.Lock()
	change(&r.status)
	r.mu.Unlock()
}
