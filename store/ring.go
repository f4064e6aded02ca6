package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// Durability is how much it takes for a record to count as accepted.
type Durability string

// Levels of durability.
const (
	Sync    Durability = "sync"    // it is on disk
	Delayed Durability = "delayed" // it is on disk, after a commit that waited up to commit_delay for company; a poll's has been copied
	Memory  Durability = "memory"  // it is in a Ring
)

// Ring is a queue in memory, for records of the level Memory: best effort. It takes
// what comes at once, never waits and never writes. When it is full the oldest
// records go: each cursor that had yet to read them is told by an Item with a Gap,
// and they are counted. What is in it when the process ends is lost.
//
// Its records are numbered under an epoch of their own, drawn with each start, so
// that numbers never come twice. Channels are remembered for as long as it lives.
//
// It has the methods that producers know from Store. All may be called concurrently.
type Ring struct {
	size  int64
	epoch record.Epoch
	log   *slog.Logger
	done  *Commit

	mu       sync.Mutex
	ids      identities
	channels channels
	items    []ringItem
	first    uint64 // position of items[0]
	bytes    int64
	cursors  []*RingCursor
	stats    RingStats
	saidAt   time.Time // when dropping was logged last
	closed   bool
}

type ringItem struct {
	Item
	size int64
}

// ringOverhead is about what a record takes beside its body.
const ringOverhead = 128

// RingStats is what an operator sees of a Ring. Counters start at 0.
type RingStats struct {
	Epoch    string            `json:"epoch"`
	Bytes    int64             `json:"bytes"` // of records, with what they take beside their bodies
	MaxBytes int64             `json:"max_bytes"`
	Records  uint64            `json:"records"`
	Appended uint64            `json:"appended"`
	Repeats  uint64            `json:"repeats"`  // entries that a channel already had
	Unwanted uint64            `json:"unwanted"` // records that no cursor takes
	Cursors  []RingCursorStats `json:"cursors"`
}

// RingCursorStats is what an operator sees of a RingCursor.
type RingCursorStats struct {
	Name    string        `json:"name"`
	Lag     uint64        `json:"lag"`               // records to deliver
	Dropped []DroppedFrom `json:"dropped,omitempty"` // by device
}

// NewRing makes a ring of about size bytes.
func NewRing(size int64, log *slog.Logger) *Ring {
	r := &Ring{size: size, log: log, done: &Commit{done: make(chan struct{})}, ids: newIdentities(), channels: newChannels(), first: 1}
	r.done.finish(nil)
	var random [8]byte
	for r.epoch == 0 {
		_, _ = rand.Read(random[:]) // never fails, by its documentation
		r.epoch = record.Epoch(binary.LittleEndian.Uint64(random[:]))
	}
	r.stats.Epoch, r.stats.MaxBytes = r.epoch.String(), size
	return r
}

// Epoch of the records.
func (r *Ring) Epoch() record.Epoch { return r.epoch }

// Source is Store.Source.
func (r *Ring) Source(key SourceKey) (*Source, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key.Agent == "" {
		key.Epoch = r.epoch
	}
	if source, ok := r.ids.sources[key]; ok {
		return source, nil
	}
	err := checkSource(key)
	if err == nil && len(r.ids.sources) >= MaxSources {
		err = ErrTooManySources
	}
	if err != nil {
		return nil, fmt.Errorf("store: device %q, stream %q: %w", key.Device, key.Stream, err)
	}
	return r.ids.add(key), nil
}

// Channel is Store.Channel.
func (r *Ring) Channel(key ChannelKey) (*Channel, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.channels.byKey[key]
	if !ok {
		var err error
		if c, err = r.channels.add(key); err != nil {
			return nil, fmt.Errorf("store: channel %q of %q: %w", key.Channel, key.Sender, err)
		}
		r.channels.evicted = nil
	}
	c.users++
	return c, nil
}

// Release is Store.Release.
func (r *Ring) Release(c *Channel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.users--; c.users == 0 && c.id == 0 && !c.gone {
		r.channels.remove(c)
	}
}

// Append takes a batch, and drops older records if there is no room for it. It does
// not wait, and the Commit is done. It fails as Store.Append does, but never with
// ErrFull; a batch of more than half of the ring is too large.
func (r *Ring) Append(_ context.Context, b Batch) (*Commit, error) {
	size, err := b.check()
	if err == nil && size+int64(len(b.Entries))*ringOverhead > r.size/2 {
		err = ErrTooLarge
	}
	if err == nil {
		err = r.append(&b)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return r.done, nil
}

func (r *Ring) append(b *Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	entries, err := b.Channel.fit(b)
	if err != nil {
		return err
	}
	r.stats.Repeats += uint64(len(b.Entries) - len(entries))
	if len(entries) == 0 {
		return nil
	}
	for i := range entries {
		r.add(&entries[i])
	}
	if c := b.Channel; c != nil {
		if c.id == 0 {
			r.channels.number(c)
		}
		c.last = entries[len(entries)-1].Number
		c.safe.Store(c.last)
	}
	for _, c := range r.cursors {
		if c.unread > 0 || len(c.missing.gaps) > 0 {
			c.wake()
		}
	}
	return nil
}

func (r *Ring) add(e *Entry) {
	source := e.Source
	if source.id == 0 {
		r.ids.number(source)
		for _, c := range r.cursors {
			c.learn(source)
		}
	}
	r.stats.Appended++
	item := ringItem{Item: Item{Source: source, Seq: e.Seq, Part: e.Part, Time: fromNanos(nanos(e.Time))}}
	switch {
	case e.Gap != nil:
		gap := *e.Gap
		item.Gap, item.Seq = &gap, 0
	case source.key.Agent == "":
		source.device.last++
		item.Seq, source.device.newest = source.device.last, nanos(e.Time)
	}
	wanted := false
	for _, c := range r.cursors {
		if c.takes[source.id] {
			c.unread++
			wanted = true
		}
	}
	if !wanted {
		r.stats.Unwanted++
		return
	}
	item.size = ringOverhead + int64(len(e.Body))
	for r.bytes+item.size > r.size && len(r.items) > 0 {
		r.dropFirst()
	}
	item.Position = r.first + uint64(len(r.items))
	if item.Gap == nil {
		item.Body = slices.Clone(e.Body)
	}
	r.items = append(r.items, item)
	r.bytes += item.size
}

// dropFirst lets go of the oldest record, and notes it for those who miss it.
func (r *Ring) dropFirst() {
	item := &r.items[0]
	for _, c := range r.cursors {
		if c.read >= item.Position {
			continue
		}
		c.read = item.Position
		if c.takes[item.Source.id] {
			c.lose(item)
		}
	}
	if now := time.Now(); now.Sub(r.saidAt) > time.Minute {
		r.saidAt = now
		r.log.Warn("the queue in memory is full: its oldest records are dropped, counted and announced; memory_size bounds it", "bytes", r.size)
	}
	r.release(1)
}

// release forgets the first n items.
func (r *Ring) release(n int) {
	for i := range r.items[:n] {
		r.bytes -= r.items[i].size
	}
	clear(r.items[:n])
	r.items = r.items[n:]
	r.first += uint64(n)
}

// Stats may be called at any time.
func (r *Ring) Stats() RingStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.stats
	st.Bytes, st.Records = r.bytes, uint64(len(r.items))
	st.Cursors = make([]RingCursorStats, 0, len(r.cursors))
	for _, c := range r.cursors {
		cs := RingCursorStats{Name: c.name, Lag: c.unread + c.flying}
		for _, of := range slices.SortedFunc(maps.Keys(c.dropped), compareDropped) {
			key, n := r.ids.byID[of.device].key, c.dropped[of]
			cs.Dropped = append(cs.Dropped, n.from(key, of.reason))
		}
		st.Cursors = append(st.Cursors, cs)
	}
	return st
}

// Devices is Store.Devices.
func (r *Ring) Devices() []DeviceStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]DeviceStats, 0, len(r.ids.own))
	for _, d := range r.ids.own {
		list = append(list, DeviceStats{Device: r.ids.byID[d.id].key.Device, Last: d.last, Newest: fromNanos(d.newest)})
	}
	slices.SortFunc(list, func(a, b DeviceStats) int { return cmp.Compare(a.Device, b.Device) })
	return list
}

// Close ends all reading and appending. What is not delivered is lost, and logged.
func (r *Ring) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, c := range r.cursors {
		if lag := c.unread + c.flying; lag > 0 {
			r.log.Warn("records of the level memory were not delivered and are lost", "cursor", c.name, "records", lag)
		}
		c.wake()
	}
}

// RingCursor is one reader of a Ring; it is used as a Cursor is. One goroutine calls
// Read, Ack may be called from any.
type RingCursor struct {
	ring  *Ring
	name  string
	match func(SourceKey) bool
	news  chan struct{} // holds one token when there may be something to read

	// Guarded by Ring.mu.
	takes   []bool // by source id
	read    uint64 // handed out up to here
	unread  uint64 // records taken, not handed out
	flying  uint64 // handed out, not acknowledged
	handed  uint64 // position of the item handed out last
	missing missing
	dropped map[droppedKey]droppedCount
}

// Cursor makes a reader of what is appended from now on. Of cfg it uses Name and
// Match.
func (r *Ring) Cursor(cfg CursorConfig) *RingCursor {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &RingCursor{
		ring: r, name: cfg.Name, match: cfg.Match, news: make(chan struct{}, 1), takes: make([]bool, 1),
		read: r.first + uint64(len(r.items)) - 1, dropped: make(map[droppedKey]droppedCount),
	}
	for _, source := range r.ids.byID[1:] {
		c.learn(source)
	}
	r.cursors = append(r.cursors, c)
	return c
}

func (c *RingCursor) learn(source *Source) {
	c.takes = append(c.takes, c.match == nil || c.match(source.key))
}

func (c *RingCursor) wake() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *RingCursor) lose(item *ringItem) {
	c.unread--
	at := nanos(item.Time)
	gap := record.Gap{From: item.Seq, To: item.Seq, Count: 1, Reason: record.GapDropOldest, First: item.Time, Last: item.Time}
	if item.Gap != nil {
		gap = *item.Gap
	} else {
		key := droppedKey{item.Source.device.id, gap.Reason}
		n := c.dropped[key]
		n.add(droppedCount{1, at, at})
		c.dropped[key] = n
	}
	c.missing.add(item.Source.device.id, gap)
}

// Read is Cursor.Read; an Item's Body stays valid.
func (c *RingCursor) Read(ctx context.Context, dst []Item, maxRecords, maxBytes int) ([]Item, error) {
	for {
		if err := ctx.Err(); err != nil {
			return dst, err
		}
		got, err := c.tryRead(dst, max(maxRecords, 1), maxBytes)
		if err != nil || len(got) > len(dst) {
			return got, err
		}
		select {
		case <-c.news:
		case <-ctx.Done():
		}
	}
}

func (c *RingCursor) tryRead(dst []Item, maxRecords, maxBytes int) ([]Item, error) {
	r := c.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return dst, fmt.Errorf("store: cursor %s: %w", c.name, ErrClosed)
	}
	from := len(dst)
	for len(c.missing.gaps) > 0 && len(dst)-from < maxRecords {
		m := c.missing.gaps[0]
		c.missing.gaps = c.missing.gaps[1:]
		gap := m.gap
		dst = append(dst, Item{Position: c.read, Source: r.ids.gapSource(r.ids.byID[m.device]), Time: gap.Last, Gap: &gap})
	}
	bytes := 0 // what is read now comes behind all that is missing
	for i := int(c.read + 1 - r.first); len(c.missing.gaps) == 0 && i < len(r.items) && len(dst)-from < maxRecords && bytes < max(maxBytes, 1); i++ {
		item := &r.items[i].Item
		c.read = item.Position
		if c.takes[item.Source.id] {
			dst = append(dst, *item)
			bytes += len(item.Body)
			c.unread--
			c.flying++
		}
	}
	if len(dst) > from {
		c.handed = dst[len(dst)-1].Position
	}
	r.forget()
	return dst, nil
}

// forget releases what all cursors have read: whoever delivers it has it in hand.
func (r *Ring) forget() {
	read := r.first + uint64(len(r.items)) - 1
	for _, c := range r.cursors {
		read = min(read, c.read)
	}
	r.release(int(read + 1 - r.first))
}

// Ack says that everything read up to position is delivered.
func (c *RingCursor) Ack(position uint64) {
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	if position >= c.handed {
		c.flying = 0
	}
}
