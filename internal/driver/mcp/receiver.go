package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// Queue is what the driver needs of the store.
type Queue interface {
	Source(key store.SourceKey) (*store.Source, error)
	Channel(key store.ChannelKey) (*store.Channel, error)
	Append(ctx context.Context, b store.Batch) (*store.Commit, error)
}

var _ Queue = (*store.Store)(nil)

// Now tells the time and whether it can be trusted.
type Now func() (time.Time, record.Clock)

// maxSources is how many sources a session remembers; beyond it, it forgets
// them all and asks the store again.
const maxSources = 1024

// receiver puts what one peer publishes into the queue. The session calls it
// from one goroutine.
type receiver struct {
	mcp.NoHandler
	queue   Queue
	now     Now
	log     *slog.Logger
	agent   string // our name: records that bear it must not come from elsewhere
	ownOnly bool   // the peer may speak only for itself
	admit   func(peer mcp.Peer) error

	peer     mcp.Peer
	channels map[string]*store.Channel
	sources  map[store.SourceKey]*store.Source
	key      store.SourceKey // of the record before
	source   *store.Source   // likewise

	// Scratch, reused so that a steady stream of records costs no allocations.
	record  record.Record
	entries []store.Entry
	named   []byte
}

// Open implements mcp.Handler.
func (r *receiver) Open(_ context.Context, peer mcp.Peer) error {
	if err := r.admit(peer); err != nil {
		return err
	}
	r.peer = peer
	r.channels = make(map[string]*store.Channel)
	r.sources = make(map[store.SourceKey]*store.Source)
	r.source = nil
	return nil
}

// Channel implements mcp.Handler.
func (r *receiver) Channel(name string) (uint64, error) {
	c, err := r.queue.Channel(store.ChannelKey{Sender: r.peer.Sender, Epoch: r.peer.Epoch, Channel: name})
	if err != nil {
		r.log.Warn("a channel can't be opened", "sender", r.peer.Sender, "channel", name, "error", err)
		return 0, &mcp.Error{Code: mcp.CodeBusy, Reason: "no more channels are taken"}
	}
	r.channels[name] = c
	return c.Safe(), nil
}

// Publish implements mcp.Handler. All records of a frame are stored, or none.
func (r *receiver) Publish(ctx context.Context, p *mcp.Publish) (mcp.Commit, error) {
	now, _ := r.now()
	r.entries, r.named = r.entries[:0], r.named[:0]
	for number, raw := range p.Records() {
		e, err := r.entry(raw, now)
		if err != nil {
			return nil, fmt.Errorf("record %d of channel %s: %w", number, p.Channel, err)
		}
		e.Number = number
		r.entries = append(r.entries, e)
	}
	batch := store.Batch{Entries: r.entries, Previous: p.Previous}
	if !r.peer.Anonymous {
		batch.Channel = r.channels[string(p.Channel)]
	}
	commit, err := r.queue.Append(ctx, batch)
	switch {
	case err == nil:
		return commit, nil
	case errors.Is(err, store.ErrChannelGone):
		return nil, &mcp.Error{Code: mcp.CodeEpochSpent, Reason: "this epoch is too old to be remembered"}
	case errors.Is(err, store.ErrTooLarge):
		return nil, &mcp.Error{Code: mcp.CodeTooLarge, Reason: "the queue is too small for this batch"}
	case ctx.Err() == nil:
		r.log.Error("records of a peer can't be stored", "sender", r.peer.Sender, "error", err)
	}
	return nil, err
}

// entry checks one record and says what the queue must know of it. The body is
// the record as it came: what it says of itself is not written anew.
func (r *receiver) entry(raw []byte, now time.Time) (store.Entry, error) {
	if r.peer.Anonymous {
		raw = r.withName(raw)
	}
	rec := &r.record
	if err := rec.Unmarshal(raw); err != nil {
		return store.Entry{}, badRecord("%s", err)
	}
	if (rec.Gap != nil) != (rec.Stream == record.GapStream) {
		return store.Entry{}, badRecord("the stream %s is for announcing gaps, and for nothing else", record.GapStream)
	}
	e := store.Entry{Time: rec.Time, Body: raw, Gap: rec.Gap}
	if e.Gap != nil {
		e.Body = nil
	}
	if e.Time.IsZero() {
		e.Time = now
	}
	key := store.SourceKey{Device: rec.Device, Stream: rec.Stream}
	if rec.Agent != "" {
		if rec.Epoch == 0 || rec.Seq == 0 && rec.Gap == nil {
			return store.Entry{}, badRecord("it names the agent %s, and no epoch or number", rec.Agent)
		}
		key.Agent, key.Epoch = rec.Agent, rec.Epoch
		e.Seq, e.Part = rec.Seq, rec.Part
	}
	if err := r.mayPublish(rec); err != nil {
		return store.Entry{}, err
	}
	var err error
	e.Source, err = r.sourceOf(key)
	return e, err
}

func badRecord(format string, args ...any) error {
	return &mcp.Error{Code: mcp.CodeBadPayload, Reason: fmt.Sprintf(format, args...)}
}

// mayPublish decides whether the peer may speak for the record's device.
func (r *receiver) mayPublish(rec *record.Record) error {
	speaker := rec.Agent
	if speaker == "" {
		speaker = rec.Device
	}
	switch {
	case rec.Agent == r.agent:
		return &mcp.Error{Code: mcp.CodeNotAllowed, Reason: "a record of " + r.agent + " came back to it: a loop, or two agents with one id"}
	case r.ownOnly && speaker != r.peer.Sender:
		return &mcp.Error{Code: mcp.CodeNotAllowed, Reason: r.peer.Sender + " may not speak for " + speaker}
	}
	return nil
}

// withName puts the name from the configuration in front of a record, which may
// lack one: of a field that comes twice, protobuf takes the last.
func (r *receiver) withName(raw []byte) []byte {
	start := len(r.named)
	r.named = protowire.AppendTag(r.named, 1, protowire.BytesType) // device, see record.proto
	r.named = protowire.AppendString(r.named, r.peer.Sender)
	r.named = append(r.named, raw...)
	return r.named[start:]
}

func (r *receiver) sourceOf(key store.SourceKey) (*store.Source, error) {
	if r.source != nil && key == r.key {
		return r.source, nil
	}
	source, ok := r.sources[key]
	if !ok {
		var err error
		if source, err = r.queue.Source(key); err != nil {
			r.log.Warn("a device of a peer is refused", "sender", r.peer.Sender, "device", key.Device, "stream", key.Stream, "error", err)
			return nil, &mcp.Error{Code: mcp.CodeBusy, Reason: "no more devices or streams are taken"}
		}
		if len(r.sources) == maxSources {
			clear(r.sources)
		}
		r.sources[key] = source
	}
	r.key, r.source = key, source
	return source, nil
}
