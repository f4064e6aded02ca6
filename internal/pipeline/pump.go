// Package pipeline moves records from the queue to their destinations.
//
// A Pump serves one pair of route and upstream. It owns the pair's cursor: it
// reads what the route takes, hands it to the upstream, and moves the cursor
// when the upstream has said that all of it is safe. So a record is delivered at
// least once, and first appearances are in order for each device. A pump that
// waits for its upstream costs the others nothing.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// Cursor is the pump's place in the queue; store.Cursor is one.
type Cursor interface {
	// Read waits for records and appends them to dst; they and what they point
	// to are valid until the next Read.
	Read(ctx context.Context, dst []store.Item, maxRecords, maxBytes int) ([]store.Item, error)
	// Ack says that everything read up to position is delivered.
	Ack(position uint64)
}

// Sender is what a pump needs of an upstream.
type Sender interface {
	Send(ctx context.Context, batch []record.Record) error
}

// Times knows what a time from a clock that was not synchronised has turned out to
// be. It may be used concurrently.
type Times interface {
	// Correct returns when it was, up after a boot of the machine.
	Correct(boot record.Boot, up time.Duration) (t time.Time, known bool)
}

// Bounds of one batch. Larger ones save an upstream nothing more, smaller ones
// cost it a sync or a round trip each.
const (
	maxBatchRecords = 4096
	maxBatchBytes   = 2 << 20
)

// Retry bounds between attempts to send a batch that failed.
const (
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second
)

// Pump moves records of one route to one upstream. Run's goroutine owns all of
// it but the status.
type Pump struct {
	name       string
	agent      string
	cursor     Cursor
	upstream   Sender
	quarantine *Quarantine
	times      Times
	log        *slog.Logger
	resent     bool // what it sends was sent before

	items []store.Item
	batch []record.Record

	mu     sync.Mutex
	status Status
}

// Status is what an operator sees of a pump. Counters start at 0 with the agent.
type Status struct {
	Sent         uint64    `json:"sent"`                   // records that the upstream has confirmed
	Retries      uint64    `json:"retries"`                // of sending, of reading the queue, of setting aside
	Quarantined  uint64    `json:"quarantined"`            // records set aside
	Corrected    uint64    `json:"corrected"`              // records whose time was put right
	Reason       string    `json:"reason,omitempty"`       // what is tried again, and why
	FailingSince time.Time `json:"failing_since,omitzero"` // since when
	SendingSince time.Time `json:"sending_since,omitzero"` // since when it is tried
	LastSent     time.Time `json:"last_sent,omitzero"`     // last confirmation
}

// NewPump makes a pump; it starts nothing. agent is this agent's name, which
// stands on records that were first stored here.
func NewPump(name, agent string, cursor Cursor, up Sender, q *Quarantine, times Times, log *slog.Logger) *Pump {
	return &Pump{name: name, agent: agent, cursor: cursor, upstream: up, quarantine: q, times: times, log: log.With("route", name)}
}

// Run moves records until ctx ends, and returns nil then. Nothing else ends it:
// what fails is tried again, and Status says what and why.
func (p *Pump) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		var items []store.Item
		p.persist(ctx, "reading the queue", func() (err error) {
			items, err = p.cursor.Read(ctx, p.items[:0], maxBatchRecords, maxBatchBytes)
			return err
		})
		p.items = items
		p.deliver(ctx, p.decode(ctx))
		if ctx.Err() == nil && len(items) > 0 {
			p.cursor.Ack(items[len(items)-1].Position)
		}
	}
	return nil
}

// persist does what must not fail until it succeeds or ctx ends.
func (p *Pump) persist(ctx context.Context, what string, do func() error) {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := do()
		if err == nil || ctx.Err() != nil {
			p.note(func(s *Status) { s.Reason, s.FailingSince = "", time.Time{} })
			return
		}
		p.failed(fmt.Errorf("%s: %w", what, err))
		if !sleep(ctx, wait/2+rand.N(wait/2)) {
			return
		}
	}
}

// decode turns the items read into records, in place of those of the batch
// before. What can't be decoded goes to quarantine. A time that is known better by
// now is corrected: nobody waits for that, a record whose time is not known yet goes
// out as it is.
func (p *Pump) decode(ctx context.Context) []record.Record {
	n, corrected := 0, uint64(0)
	for i := range p.items {
		if n == len(p.batch) {
			p.batch = append(p.batch, record.Record{})
		}
		r := &p.batch[n]
		if err := p.decodeItem(r, &p.items[i]); err != nil {
			p.setAside(ctx, p.unreadable(&p.items[i]), fmt.Errorf("%w: %w", ErrUnreadable, err))
			continue
		}
		if p.correct(r) {
			corrected++
		}
		n++
	}
	if corrected > 0 {
		p.note(func(s *Status) { s.Corrected += corrected })
	}
	return p.batch[:n]
}

func (p *Pump) decodeItem(r *record.Record, item *store.Item) error {
	key := item.Source.Key()
	if item.Gap == nil {
		// The store's strings are shared by all records of a source: set before,
		// they spare Unmarshal its own.
		r.Device, r.Stream = key.Device, key.Stream
		if err := r.Unmarshal(item.Body); err != nil {
			return err
		}
	} else {
		*r = record.Record{Stream: record.GapStream, Gap: item.Gap, Points: r.Points[:0]}
	}
	p.identify(r, item)
	return nil
}

// identify sets what the queue knows of a record and its bytes do not.
func (p *Pump) identify(r *record.Record, item *store.Item) {
	key := item.Source.Key()
	r.Agent, r.Epoch, r.Device = key.Agent, key.Epoch, key.Device
	if r.Agent == "" {
		r.Agent = p.agent
	}
	r.Seq, r.Part, r.Resent = item.Seq, item.Part, p.resent
	if r.Time.IsZero() {
		r.Time = item.Time.UTC()
	}
}

func (p *Pump) correct(r *record.Record) bool {
	if r.Clock != record.ClockUnsynced || r.Boot == 0 {
		return false
	}
	t, known := p.times.Correct(r.Boot, r.Up)
	if known {
		r.Correct(t)
	}
	return known
}

func (p *Pump) unreadable(item *store.Item) record.Record {
	r := record.Record{
		Stream: item.Source.Key().Stream, Quality: record.Bad,
		Payload: item.Body, ContentType: "application/protobuf",
	}
	p.identify(&r, item)
	return r
}

// deliver sends the batch until it is safe or ctx ends. What the destination
// refuses for good is set aside, and the rest behind it flows.
func (p *Pump) deliver(ctx context.Context, batch []record.Record) {
	if len(batch) == 0 {
		return
	}
	p.note(func(s *Status) { s.SendingSince = time.Now() })
	defer p.note(func(s *Status) { s.SendingSince = time.Time{} })
	var refused error
	p.persist(ctx, "sending", func() error {
		err := p.upstream.Send(ctx, batch)
		if errors.Is(err, upstream.ErrRefused) {
			refused = err
			return nil
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
	case refused == nil:
		p.sent(len(batch))
	case len(batch) == 1:
		p.setAside(ctx, batch[0], refused)
	default:
		// Halves find the refused record in few steps. What was taken before it
		// may repeat.
		half := len(batch) / 2
		p.deliver(ctx, batch[:half])
		p.deliver(ctx, batch[half:])
	}
}

func (p *Pump) setAside(ctx context.Context, r record.Record, cause error) {
	p.log.Error("record set aside in the quarantine file, the ones behind it go on",
		"device", r.Device, "seq", r.Seq, "file", p.quarantine.Path(), "error", cause)
	p.persist(ctx, "setting a refused record aside", func() error { return p.quarantine.Add(p.name, &r, cause) })
	if ctx.Err() == nil {
		p.note(func(s *Status) { s.Quarantined++ })
	}
}

func (p *Pump) sent(n int) {
	now := time.Now()
	p.note(func(s *Status) {
		s.Sent += uint64(n)
		s.LastSent = now
	})
}

func (p *Pump) failed(err error) {
	var news bool
	p.note(func(s *Status) {
		news = s.Reason != err.Error()
		if s.FailingSince.IsZero() {
			s.FailingSince = time.Now()
		}
		s.Retries++
		s.Reason = err.Error()
	})
	if news {
		p.log.Warn("trying again until it works", "error", err)
	}
}

// Status may be called at any time.
func (p *Pump) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

func (p *Pump) note(change func(*Status)) {
	p.mu.Lock()
	change(&p.status)
	p.mu.Unlock()
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
