package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/record"
)

// ErrNoEntry is returned for an entry that is not in quarantine.
var ErrNoEntry = errors.New("there is no such entry in quarantine")

const (
	// retryBatch bounds what is sent at a time, in entries and bytes of the file.
	retryBatch      = 256
	retryBatchBytes = 2 << 20

	// retryPatience is how long a destination may keep a batch; then others have their
	// turn, and it is tried again after retryPause.
	retryPatience = 30 * time.Second
	retryPause    = 30 * time.Second

	// retrySettled is how many entries are settled before the file is written anew:
	// after a crash so many may be delivered again.
	retrySettled = 10_000
)

// Retrier sends entries of the quarantine again when somebody asks for it, beside
// the pumps. An entry leaves the file once it is delivered; one that is refused again
// stays, with the new reason. What was asked for is forgotten when the agent stops.
type Retrier struct {
	*Quarantine
	senders map[string]Sender // by route and upstream
	log     *slog.Logger
	kick    chan struct{}

	mu     sync.Mutex
	wanted map[string]bool // by id
	status RetryStatus
}

// RetryStatus tells how far a Retrier is. Counters start at 0 with the agent.
type RetryStatus struct {
	Waiting   int    `json:"waiting"` // entries still to be sent
	Delivered uint64 `json:"delivered"`
	Refused   uint64 `json:"refused"` // again
	Reason    string `json:"reason,omitempty"`
}

// NewRetrier makes one; it starts nothing.
func NewRetrier(q *Quarantine, log *slog.Logger) *Retrier {
	return &Retrier{Quarantine: q, senders: make(map[string]Sender), log: log, kick: make(chan struct{}, 1), wanted: make(map[string]bool)}
}

// Route says where the records of a route and upstream go, before Run.
func (r *Retrier) Route(name string, to Sender) { r.senders[name] = to }

// Retry asks for entries to be sent again; nil means all. It returns how many it has
// not been asked for before, and fails with ErrNoEntry, or for an entry whose route is
// not there any more, when nothing can be sent.
func (r *Retrier) Retry(ids []string) (int, error) {
	asked := make(map[string]bool, len(ids))
	for _, id := range ids {
		asked[id] = true
	}
	var found []string
	var why error
	_, err := r.lines(0, func(line []byte) bool {
		e := parseQuarantined(line)
		if ids != nil && !asked[e.ID] {
			return true
		}
		delete(asked, e.ID)
		switch {
		case e.Damaged:
			why = fmt.Errorf("entry %s can't be read; it can be deleted only", e.ID)
		case r.senders[e.Route] == nil:
			why = fmt.Errorf("the route of entry %s, %s, is not in the configuration any more: export it, or delete it", e.ID, e.Route)
		default:
			found = append(found, e.ID)
		}
		return true
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("quarantine: %w", err)
	case len(found) == 0 && why != nil:
		return 0, why
	case len(asked) > 0:
		return 0, ErrNoEntry
	}
	r.mu.Lock()
	before := len(r.wanted)
	for _, id := range found {
		r.wanted[id] = true
	}
	r.status.Waiting = len(r.wanted)
	n := len(r.wanted) - before
	r.mu.Unlock()
	select {
	case r.kick <- struct{}{}:
	default:
	}
	return n, nil
}

// RetryStatus may be called at any time.
func (r *Retrier) RetryStatus() RetryStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run sends what is asked for, until ctx ends, and returns nil then.
func (r *Retrier) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.kick:
		}
		for r.RetryStatus().Waiting > 0 && ctx.Err() == nil {
			if err := r.round(ctx); err != nil && ctx.Err() == nil {
				r.failed(err)
				sleep(ctx, retryPause)
			}
		}
	}
}

func (r *Retrier) failed(err error) {
	r.mu.Lock()
	news := r.status.Reason != err.Error()
	r.status.Reason = err.Error()
	r.mu.Unlock()
	if news {
		r.log.Warn("entries of the quarantine can't be sent again yet; trying again", "error", err)
	}
}

// verdicts is what a round has found out.
type verdicts struct {
	delivered map[string]bool
	refused   map[string]error
}

func (v *verdicts) settled() int { return len(v.delivered) + len(v.refused) }

// round goes through the file once. The error is that of a route which can't deliver
// now; the others were served.
func (r *Retrier) round(ctx context.Context) error {
	batches := make(map[string]*retryLoad)
	away := make(map[string]error)
	v := verdicts{delivered: make(map[string]bool), refused: make(map[string]error)}
	send := func(route string) {
		load := batches[route]
		delete(batches, route)
		if away[route] == nil {
			away[route] = r.send(ctx, route, load.entries, &v)
		}
	}
	_, err := r.lines(0, func(line []byte) bool {
		e := parseQuarantined(line)
		r.mu.Lock()
		wanted := r.wanted[e.ID]
		r.mu.Unlock()
		if !wanted || away[e.Route] != nil {
			return true
		}
		load := batches[e.Route]
		if load == nil {
			load = new(retryLoad)
			batches[e.Route] = load
		}
		load.entries = append(load.entries, e)
		if load.bytes += len(line); load.bytes > retryBatchBytes || len(load.entries) >= retryBatch {
			send(e.Route)
		}
		return v.settled() < retrySettled && ctx.Err() == nil
	})
	for route := range batches {
		send(route)
	}
	err = errors.Join(err, r.settle(&v))
	for route, why := range away {
		if why != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", route, why))
		}
	}
	if err == nil && v.settled() == 0 {
		r.forget() // somebody has deleted the rest
	}
	return err
}

// retryLoad is a batch that is being put together.
type retryLoad struct {
	entries []Quarantined
	bytes   int
}

// forget gives up what is asked for and no longer there.
func (r *Retrier) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.wanted)
	r.status.Waiting, r.status.Reason = 0, ""
}

// send tries a batch, and halves of it where the destination refuses.
func (r *Retrier) send(ctx context.Context, route string, entries []Quarantined, v *verdicts) error {
	records := make([]record.Record, 0, len(entries))
	good := entries[:0:0]
	for i := range entries {
		rec, err := entries[i].record()
		if err != nil {
			v.refused[entries[i].ID] = err
			continue
		}
		rec.Resent = true // it goes out behind newer ones
		records, good = append(records, rec), append(good, entries[i])
	}
	if len(records) == 0 {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, retryPatience)
	err := r.senders[route].Send(within, records)
	cancel()
	switch {
	case err == nil:
		for i := range good {
			v.delivered[good[i].ID] = true
		}
	case !errors.Is(err, upstream.ErrRefused):
		return err
	case len(good) == 1:
		v.refused[good[0].ID] = err
	default:
		half := len(good) / 2
		if err := r.send(ctx, route, good[:half], v); err != nil {
			return err
		}
		return r.send(ctx, route, good[half:], v)
	}
	return nil
}

// record is what was set aside.
func (e *Quarantined) record() (record.Record, error) {
	var r record.Record
	// What an older version wrote beside a record's members is no reason to keep it back.
	if err := r.ParseJSON(e.Record, func(string, json.RawMessage) error { return nil }); err != nil {
		return r, err
	}
	if !e.Unreadable {
		return r, nil
	}
	var decoded record.Record
	if err := decoded.Unmarshal(r.Payload); err != nil {
		return r, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	decoded.Agent, decoded.Epoch, decoded.Device, decoded.Seq, decoded.Part = r.Agent, r.Epoch, r.Device, r.Seq, r.Part
	if decoded.Time.IsZero() {
		decoded.Time = r.Time
	}
	return decoded, nil
}

// settle takes what was delivered out of the file, and notes why the rest was
// refused again.
func (r *Retrier) settle(v *verdicts) error {
	if v.settled() == 0 {
		return nil
	}
	now := time.Now().UTC()
	_, err := r.rewrite(func(e *Quarantined) *Quarantined {
		if v.delivered[e.ID] {
			return nil
		}
		if why := v.refused[e.ID]; why != nil {
			e.At, e.Reason = now, why.Error()
			e.Tries++
		}
		return e
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range v.delivered {
		delete(r.wanted, id)
	}
	for id := range v.refused {
		delete(r.wanted, id)
	}
	r.status.Delivered += uint64(len(v.delivered))
	r.status.Refused += uint64(len(v.refused))
	r.status.Waiting, r.status.Reason = len(r.wanted), ""
	r.log.Info("entries of the quarantine were sent again", "delivered", len(v.delivered), "refused_again", len(v.refused), "waiting", len(r.wanted))
	return nil
}
