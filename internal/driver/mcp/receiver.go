package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// Queue is what the driver needs of the store.
type Queue interface {
	Source(key store.SourceKey) (*store.Source, error)
	Channel(key store.ChannelKey) (*store.Channel, error)
	Release(c *store.Channel)
	Append(ctx context.Context, b store.Batch) (*store.Commit, error)
}

var _ Queue = (*store.Store)(nil)

// Level tells where a peer's records go, and whether a commit may wait for company
// before they are acknowledged.
type Level func(sender string) (queue Queue, delay bool)

// Now tells the time and how far it can be trusted.
type Now func() record.Stamp

// maxSources is how many sources a session remembers; beyond it, it forgets
// them all and asks the store again.
const maxSources = 1024

// receiver puts what one peer publishes into the queue. The session makes one
// call after the other. There are as many receivers as sessions, and most are
// idle: so what publishing needs is made for the first PUBLISH, and what it
// needs only meanwhile is borrowed.
type receiver struct {
	mcp.NoHandler
	queue    Queue
	now      Now
	log      *slog.Logger
	agent    string // our name: records that bear it must not come from elsewhere
	from     string // the listener or link, see sender
	admit    func(ctx context.Context, peer mcp.Peer) error
	throttle func(ctx context.Context, batch []share) error // nil: nobody is too fast
	level    Level                                          // nil: queue, without delay
	delay    bool                                           // commits may wait for company

	// What admit found out:
	identity Identity // nil: nobody has asked
	ownOnly  bool     // the peer may speak only for itself

	peer     mcp.Peer
	channels []*store.Channel                  // few, so they are not worth a map
	sources  map[store.SourceKey]*store.Source // for which the peer may speak
	key      store.SourceKey                   // of the record before
	source   *store.Source                     // likewise

	scratches *scratches
	record    *record.Record // the last one: what reads the same need not be allocated again
}

// scratch is what a PUBLISH needs while it is worked on.
type scratch struct {
	entries []store.Entry
	named   []byte
	shares  []share
	checker record.Checker
}

// Larger ones are left to the garbage collector.
const (
	keepEntries = 4096
	keepNamed   = 1 << 20
	keepPoints  = 64
)

// scratches are those that nobody works with.
type scratches struct{ pool sync.Pool }

func (p *scratches) borrow() *scratch {
	if s, ok := p.pool.Get().(*scratch); ok {
		return s
	}
	return new(scratch)
}

func (p *scratches) giveBack(s *scratch) {
	if cap(s.entries) > keepEntries || cap(s.named) > keepNamed {
		return
	}
	clear(s.entries) // they point into what was received
	s.entries, s.named, s.shares = s.entries[:0], s.named[:0], s.shares[:0]
	p.pool.Put(s)
}

// Open implements mcp.Handler.
func (r *receiver) Open(ctx context.Context, peer mcp.Peer) error {
	if err := r.admit(ctx, peer); err != nil {
		return err
	}
	r.leave()
	r.peer = peer
	if r.level != nil {
		r.queue, r.delay = r.level(peer.Sender)
	}
	return nil
}

// leave ends what Open began, when the session is over or begins anew.
func (r *receiver) leave() {
	for _, c := range r.channels {
		r.queue.Release(c)
	}
	r.channels, r.sources, r.source = nil, nil, nil
}

// Channel implements mcp.Handler. Who names a channel wants to publish.
func (r *receiver) Channel(name string) (uint64, error) {
	if r.identity != nil && !r.identity.Has(RolePublish) {
		return 0, notAllowed("%s was not given the role %q", r.peer.Sender, RolePublish)
	}
	c, err := r.queue.Channel(store.ChannelKey{Sender: r.sender(), Epoch: r.peer.Epoch, Channel: name})
	if err != nil {
		r.log.Warn("a channel can't be opened", "sender", r.peer.Sender, "channel", name, "error", err)
		return 0, &mcp.Error{Code: mcp.CodeBusy, Reason: "no more channels are taken"}
	}
	r.channels = append(r.channels, c)
	return c.Safe(), nil
}

// SetBack implements mcp.SetBackHandler.
func (r *receiver) SetBack(channel string, safe, published uint64) {
	r.log.Error("a peer publishes numbers again that it was just told are safe, so it does not know what it has sent (was it restored from a copy?): up to the last safe one all is taken for repeats and dropped; it should begin a new epoch",
		"sender", r.peer.Sender, "epoch", r.peer.Epoch, "channel", channel, "safe", safe, "published", published)
}

var _ mcp.SetBackHandler = (*receiver)(nil)

// sender is under which name the queue keeps the peer's numbers. One that has
// proven its name has the same wherever it comes in. What others say of
// themselves counts only where they say it: else whoever reaches an open listener
// could move the numbers of a peer that a closed one knows, and what that sends
// next would be taken for repeats. No name has a slash in it.
func (r *receiver) sender() string {
	if r.identity != nil {
		return r.peer.Sender
	}
	return r.peer.Sender + "/" + r.from
}

// channel finds one that Channel was called for.
func (r *receiver) channel(name []byte) *store.Channel {
	for _, c := range r.channels {
		if c.Key().Channel == string(name) {
			return c
		}
	}
	return nil
}

// Publish implements mcp.Handler. All records of a frame are stored, or none.
func (r *receiver) Publish(ctx context.Context, p *mcp.Publish) (mcp.Commit, error) {
	work := r.scratches.borrow()
	defer r.tidy(work)
	if r.record == nil {
		r.record = new(record.Record)
	}
	now := r.now()
	for number, raw := range p.Records() {
		e, err := r.entry(work, raw, now)
		if err != nil {
			return nil, fmt.Errorf("record %d of channel %s: %w", number, p.Channel, err)
		}
		e.Number = number
		work.entries = append(work.entries, e)
	}
	if r.throttle != nil {
		if err := r.throttle(ctx, work.perDevice()); err != nil {
			return nil, err
		}
	}
	batch := store.Batch{Entries: work.entries, Previous: p.Previous, Delay: r.delay}
	if !r.peer.Anonymous {
		batch.Channel = r.channel(p.Channel)
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

// tidy leaves nothing large with a peer that may fall silent now.
func (r *receiver) tidy(work *scratch) {
	r.scratches.giveBack(work)
	r.record.Payload, r.record.Gap = nil, nil
	if cap(r.record.Points) > keepPoints {
		r.record.Points = nil
	}
}

// perDevice counts the records of each device, as far as they stand together.
func (s *scratch) perDevice() []share {
	for i := range s.entries {
		key := s.entries[i].Source.Key()
		device := deviceKey{agent: key.Agent, device: key.Device}
		if n := len(s.shares); n > 0 && s.shares[n-1].device == device {
			s.shares[n-1].records++
			continue
		}
		s.shares = append(s.shares, share{device: device, records: 1})
	}
	return s.shares
}

// entry checks one record and says what the queue must know of it. The body is
// the record as it came: what it says of itself is not written anew. One that does
// not say when has our time put behind it.
func (r *receiver) entry(work *scratch, raw []byte, now record.Stamp) (store.Entry, error) {
	if r.peer.Anonymous {
		raw = work.withName(r.peer.Sender, raw)
	}
	rec := r.record
	if err := rec.Unmarshal(raw); err != nil {
		return store.Entry{}, badRecord("%s", err)
	}
	if err := work.checker.Check(rec); err != nil {
		return store.Entry{}, badRecord("%s", err)
	}
	if (rec.Gap != nil) != (rec.Stream == record.GapStream) {
		return store.Entry{}, badRecord("the stream %s is for announcing gaps, and for nothing else", record.GapStream)
	}
	e := store.Entry{Time: rec.Time, Body: raw, Gap: rec.Gap}
	switch {
	case e.Gap != nil:
		e.Body = nil
	case e.Time.IsZero():
		e.Body = work.stamped(raw, &now)
	}
	if e.Time.IsZero() {
		e.Time = now.Time
	}
	key := store.SourceKey{Device: rec.Device, Stream: rec.Stream}
	if rec.Agent != "" {
		if rec.Epoch == 0 || rec.Seq == 0 && rec.Gap == nil {
			return store.Entry{}, badRecord("it names the agent %s, and no epoch or number", rec.Agent)
		}
		key.Agent, key.Epoch = rec.Agent, rec.Epoch
		e.Seq, e.Part = rec.Seq, rec.Part
	}
	var err error
	e.Source, err = r.sourceOf(key)
	return e, err
}

func badRecord(format string, args ...any) error {
	return &mcp.Error{Code: mcp.CodeBadPayload, Reason: fmt.Sprintf(format, args...)}
}

// mayPublish decides whether the peer may speak for the device. What an agent
// below has collected, that agent speaks for: which devices it has is its own
// affair, and a token for it need not name them.
func (r *receiver) mayPublish(key store.SourceKey) error {
	speaker := key.Agent
	if speaker == "" {
		speaker = key.Device
	}
	switch {
	case key.Agent == r.agent:
		return notAllowed("a record of %s came back to it: a loop, or two agents with one id", r.agent)
	case r.ownOnly && speaker != r.peer.Sender, r.identity != nil && !r.identity.MaySpeakFor(speaker):
		return notAllowed("%s may not speak for %s", r.peer.Sender, speaker)
	}
	return nil
}

func notAllowed(format string, args ...any) error {
	return &mcp.Error{Code: mcp.CodeNotAllowed, Reason: fmt.Sprintf(format, args...)}
}

// withName puts the name from the configuration in front of a record, which may
// lack one: of a field that comes twice, protobuf takes the last.
func (s *scratch) withName(sender string, raw []byte) []byte {
	start := len(s.named)
	s.named = protowire.AppendTag(s.named, 1, protowire.BytesType) // device, see record.proto
	s.named = protowire.AppendString(s.named, sender)
	s.named = append(s.named, raw...)
	return s.named[start:]
}

// stamped puts our time behind a record that has none.
func (s *scratch) stamped(raw []byte, now *record.Stamp) []byte {
	start := len(s.named)
	s.named = append(s.named, raw...)
	s.named = now.Append(s.named)
	return s.named[start:]
}

// sourceOf finds the source, if the peer may speak for it.
func (r *receiver) sourceOf(key store.SourceKey) (*store.Source, error) {
	if r.source != nil && key == r.key {
		return r.source, nil
	}
	source, ok := r.sources[key]
	if !ok {
		if err := r.mayPublish(key); err != nil {
			return nil, err
		}
		var err error
		if source, err = r.queue.Source(key); err != nil {
			r.log.Warn("a device of a peer is refused", "sender", r.peer.Sender, "device", key.Device, "stream", key.Stream, "error", err)
			return nil, &mcp.Error{Code: mcp.CodeBusy, Reason: "no more devices or streams are taken"}
		}
		switch {
		case r.sources == nil:
			r.sources = make(map[store.SourceKey]*store.Source)
		case len(r.sources) == maxSources:
			clear(r.sources)
		}
		r.sources[key] = source
	}
	r.key, r.source = key, source
	return source, nil
}
