// Package intake puts what drivers read into the queue.
//
// A polled reading may wait for others before it is written (commit_delay), and
// a full queue holds the poll up: that is its flow control. A device that speaks
// by itself over a line without flow control can't be held up: when the queue
// is full its newest records are lost, counted, and announced by a gap record
// as soon as there is room.
package intake

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// Queue is what the intake needs of the store.
type Queue interface {
	Source(key store.SourceKey) (*store.Source, error)
	Append(ctx context.Context, b store.Batch) (*store.Commit, error)
}

// Intake appends records; its sinks may be used concurrently.
type Intake struct {
	queue Queue
	log   *slog.Logger

	mu      sync.Mutex
	sources map[store.SourceKey]*store.Source // bounded by what the configuration names
	scratch sync.Pool                         // of *scratch
}

// New makes an intake over a queue.
func New(queue Queue, log *slog.Logger) *Intake {
	return &Intake{
		queue: queue, log: log,
		sources: make(map[store.SourceKey]*store.Source),
		scratch: sync.Pool{New: func() any { return new(scratch) }},
	}
}

// Polled is the sink of a driver that asks.
type Polled struct{ in *Intake }

// Polled returns the sink for readings that the agent asked for.
func (in *Intake) Polled() Polled { return Polled{in} }

// Offer takes the record if that needs no waiting. False means that there is no
// room at this moment, or that storing failed: Deliver it then, or give it up.
func (p Polled) Offer(r record.Record) bool {
	return p.in.append(context.Background(), store.Batch{Delay: true, NoWait: true}, &r) == nil
}

// Deliver returns once the record is accepted: it will be on disk after
// commit_delay at most. It waits while the queue is full, until ctx ends; then
// the record was not taken.
func (p Polled) Deliver(ctx context.Context, r record.Record) error {
	return p.in.append(ctx, store.Batch{Delay: true}, &r)
}

// Synced is the sink of a driver that asks, for readings that are on disk before
// the next round of their poll begins.
type Synced struct{ in *Intake }

// Synced returns the sink for such readings.
func (in *Intake) Synced() Synced { return Synced{in} }

// Offer takes nothing: that would have to wait for the disk.
func (s Synced) Offer(record.Record) bool { return false }

// Deliver returns once the record is on disk. If ctx ends before, it may be there
// nevertheless.
func (s Synced) Deliver(ctx context.Context, r record.Record) error {
	commit, err := s.in.commit(ctx, store.Batch{}, &r)
	if err != nil {
		return err
	}
	if err := commit.Wait(ctx); err != nil {
		return fmt.Errorf("device %s: storing: %w", r.Device, err)
	}
	return nil
}

// append stores records as one batch, which says how.
func (in *Intake) append(ctx context.Context, b store.Batch, records ...*record.Record) error {
	_, err := in.commit(ctx, b, records...)
	return err
}

func (in *Intake) commit(ctx context.Context, b store.Batch, records ...*record.Record) (*store.Commit, error) {
	s := in.scratch.Get().(*scratch)
	defer in.scratch.Put(s)
	if err := in.encode(s, records); err != nil {
		return nil, err
	}
	b.Entries = s.entries
	commit, err := in.queue.Append(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("device %s: storing: %w", records[0].Device, err)
	}
	return commit, nil
}

// scratch is what a batch is put together in.
type scratch struct {
	body    []byte
	ends    []int // of each record in body
	entries []store.Entry
}

// encode makes entries of records.
func (in *Intake) encode(s *scratch, records []*record.Record) error {
	s.body, s.ends, s.entries = s.body[:0], s.ends[:0], s.entries[:0]
	for _, r := range records {
		source, err := in.source(store.SourceKey{Device: r.Device, Stream: r.Stream})
		if err != nil {
			return err
		}
		s.body = r.Append(s.body)
		s.ends = append(s.ends, len(s.body))
		s.entries = append(s.entries, store.Entry{Source: source, Time: r.Time, Gap: r.Gap})
	}
	start := 0
	for i, end := range s.ends {
		if s.entries[i].Gap == nil {
			s.entries[i].Body = s.body[start:end]
		}
		start = end
	}
	return nil
}

func (in *Intake) source(key store.SourceKey) (*store.Source, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if s, ok := in.sources[key]; ok {
		return s, nil
	}
	s, err := in.queue.Source(key)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", key.Device, err)
	}
	in.sources[key] = s
	return s, nil
}

// patience is how long a device that can't be held up may be held up: less than
// what the kernel buffers for a serial line at 115,200 baud (4 KiB).
const patience = 200 * time.Millisecond

// Pushed is the sink of one device that speaks by itself.
type Pushed struct {
	in     *Intake
	device string
	delay  bool

	mu   sync.Mutex
	gap  record.Gap // what was lost since the last gap record
	lost uint64     // in all
}

// Pushed returns the sink for a device that speaks without being asked; with delay,
// its records may wait for others before they are written.
func (in *Intake) Pushed(device string, delay bool) *Pushed {
	return &Pushed{in: in, device: device, delay: delay}
}

// Deliver takes the record, or counts it as lost when the queue has no room for
// longer than a moment. It fails only then, and when ctx has ended.
func (p *Pushed) Deliver(ctx context.Context, r record.Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	records := []*record.Record{&r}
	if p.gap.Count > 0 {
		records = []*record.Record{p.gapRecord(r.Clock), &r}
	}
	err := p.in.append(short, store.Batch{Delay: p.delay}, records...)
	if err == nil {
		p.gap = record.Gap{}
		return nil
	}
	if p.gap.Count == 0 {
		p.gap = record.Gap{Reason: record.GapOverload, First: r.Time}
		p.in.log.Warn("the queue has no room: what this device says is lost until there is", "device", p.device, "error", err)
	}
	p.gap.Count++
	p.gap.Last = r.Time
	p.lost++
	return err
}

// Flush announces what was lost since the last record, when no further one will
// come. It gives up when there is no room before ctx ends.
func (p *Pushed) Flush(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gap.Count == 0 {
		return
	}
	if err := p.in.append(ctx, store.Batch{Delay: true}, p.gapRecord(record.ClockUnsynced)); err != nil {
		p.in.log.Error("lost records could not be announced", "device", p.device, "count", p.gap.Count, "error", err)
		return
	}
	p.gap = record.Gap{}
}

// gapRecord announces what was lost so far. The caller holds mu.
func (p *Pushed) gapRecord(clock record.Clock) *record.Record {
	gap := p.gap
	return &record.Record{Device: p.device, Stream: record.GapStream, Time: gap.Last, Clock: clock, Gap: &gap}
}

// Lost is how many records were lost since the start.
func (p *Pushed) Lost() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}
