package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

var (
	// ErrClosed is returned once the store has stopped taking records.
	ErrClosed = errors.New("the queue is closed")

	// ErrTooLarge is returned for a batch that could never be stored: one of more
	// than half of max_size or max_records, or of 64 MiB.
	ErrTooLarge = errors.New("the batch is larger than the queue takes")

	// ErrFull is returned for a batch with NoWait that would have had to wait.
	ErrFull = errors.New("the queue has no room at this moment")
)

const maxBatch = 64 << 20

// Entry is a record on its way in.
type Entry struct {
	Source *Source
	Time   time.Time // as recorded, right or wrong: the store corrects none; to the nanosecond, from 1678 to 2262; zero: none
	Seq    uint64    // of another agent's record: its number. Own records get theirs from the store
	Part   uint32
	Number uint64      // place in the batch's channel, rising; unused without a channel
	Body   []byte      // copied before Append returns
	Gap    *record.Gap // set: announces records that were lost before they could be stored; Body and Seq are unused
}

// Batch is what one Append stores, all or nothing.
type Batch struct {
	Entries  []Entry
	Channel  *Channel // nil: the entries are in no channel
	Previous uint64   // the number before the first entry's; below it, too, if numbers between are none
	Delay    bool     // the commit may wait up to commit_delay for company
	NoWait   bool     // Append fails with ErrFull where it would wait
}

// Commit stands for a group commit under way; everybody whose records are in the
// group has the same.
type Commit struct {
	done chan struct{}
	err  error
}

// Done is closed when the records are on disk, or given up because the store was
// closed first: then Err says so, and they may or may not be there afterwards.
func (c *Commit) Done() <-chan struct{} { return c.done }

// Err is nil when the records are on disk. Valid after Done.
func (c *Commit) Err() error { return c.err }

// Wait returns Err once Done, or ctx's error before.
func (c *Commit) Wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Commit) finish(err error) {
	c.err = err
	close(c.done)
}

// tally counts a source's records in a group, for cursors to take their share.
type tally struct {
	source  *Source
	records uint64
	bytes   uint64
}

// group is what one transaction commits. Guarded by Store.mu while it fills;
// then the writer owns it.
type group struct {
	segment    []byte // room for the header, then records; marks when it is taken
	header     header
	since      time.Time // when what is in it first came
	urgent     bool      // somebody waits: no delay
	tallies    []tally
	marks      []mark
	channels   []*Channel        // of the marks
	sources    []*Source         // that had their first record
	fresh      []*Channel        // likewise
	checkpoint []byte            // all numbers up to the group's end; nil: none is due
	mail       map[string][]byte // changes of the mailbox; a value of nil takes the key out
	commit     *Commit           // of the records
	sides      []*Commit         // of what is no record, if there is any
	parts      []part            // the records in short segments, for a file in which no long one has room
	waiting    *group            // the records that this group goes without; nil: it has its own
}

// side is the Commit of what is in the group and is no record: it does not wait for
// room for records.
func (g *group) side() *Commit {
	if len(g.sides) == 0 {
		g.sides = append(g.sides, &Commit{done: make(chan struct{})})
	}
	return g.sides[0]
}

func (g *group) finish(err error) {
	g.commit.finish(err)
	for _, c := range g.sides {
		c.finish(err)
	}
}

// newGroup takes over the memory of spare.
func newGroup(spare spare) *group {
	return &group{
		segment: append(spare.segment[:0], make([]byte, headerSize)...),
		tallies: spare.tallies[:0],
		header:  header{oldest: noTime},
		commit:  &Commit{done: make(chan struct{})},
	}
}

// begun tells whether anything waits in the group for company.
func (g *group) begun() bool { return g.header.count > 0 || len(g.mail) > 0 }

func (g *group) begin() {
	if !g.begun() {
		g.since = time.Now()
	}
}

// Append takes a batch into the next commit. It returns as soon as the batch is
// copied; the records are on disk once the Commit is done, and only then may they
// be acknowledged. A batch that waits for company (Delay) counts as accepted
// when Append returns.
//
// Append waits, until ctx ends, while the commit before is slow and its buffer
// full, while the store is full under "block", and, for a batch with Delay, while
// the disk fails. Entries that the channel already has are dropped and counted;
// the Commit covers them nevertheless. It fails with a HoleError, ErrChannelGone,
// ErrTooLarge, ErrFull or ErrClosed, and then nothing of the batch is stored.
//
// It may be called concurrently; batches of one device are numbered in the order
// of the calls.
func (s *Store) Append(ctx context.Context, b Batch) (*Commit, error) {
	commit, err := s.append(ctx, &b)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return commit, nil
}

func (s *Store) append(ctx context.Context, b *Batch) (*Commit, error) {
	size, err := s.checkBatch(b)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.stopped {
			return nil, ErrClosed
		}
		entries, err := b.Channel.fit(b)
		if err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			return s.repeated(b), nil
		}
		if s.admits(amount{size, int64(len(entries))}, b.Delay) {
			s.stats.repeats += uint64(len(b.Entries) - len(entries))
			return s.add(entries, b), nil
		}
		if b.NoWait {
			return nil, ErrFull
		}
		if err := s.waitForRoom(ctx); err != nil {
			return nil, s.noRoom(err)
		}
	}
}

// checkBatch returns the most bytes that the batch may need.
func (s *Store) checkBatch(b *Batch) (size int64, err error) {
	size, err = b.check()
	if size > min(s.cfg.MaxSize/2, maxBatch) || s.cfg.MaxRecords > 0 && int64(len(b.Entries)) > s.cfg.MaxRecords/2 {
		return 0, ErrTooLarge
	}
	return size, err
}

// check finds what makes no sense, and returns the most bytes that the batch may need.
func (b *Batch) check() (size int64, err error) {
	number := b.Previous
	for i := range b.Entries {
		e := &b.Entries[i]
		switch {
		case e.Source == nil:
			return 0, fmt.Errorf("entry %d has no source", i)
		case e.Gap == nil && e.Source.key.Agent != "" && e.Seq == 0:
			return 0, fmt.Errorf("entry %d is another agent's and has no number", i)
		case b.Channel != nil && e.Number <= number:
			return 0, fmt.Errorf("entry %d has number %d, which does not rise", i, e.Number)
		}
		number = e.Number
		size += maxEnvelope + int64(len(e.Body))
		if e.Gap != nil {
			size += maxGap
		}
	}
	return size, nil
}

// repeated is the Commit for a batch of which nothing is new.
func (s *Store) repeated(b *Batch) *Commit {
	s.stats.repeats += uint64(len(b.Entries))
	if b.Channel == nil || b.Channel.commit == nil {
		return s.nothing
	}
	if b.Channel.commit == s.pending.commit && !b.Delay && !s.pending.urgent {
		s.pending.urgent = true
		s.wake()
	}
	return b.Channel.commit
}

// admits tells whether a batch fits now.
func (s *Store) admits(batch amount, delay bool) bool {
	switch {
	case s.overfull(batch):
		s.pending.urgent = true
		s.wake()
		return false
	case s.trouble != nil && delay:
		return false
	case !s.fits(batch):
		s.want(batch)
		return false
	}
	return true
}

// waitForRoom returns when trying again makes sense.
func (s *Store) waitForRoom(ctx context.Context) error {
	room := s.room
	s.roomWaiters++
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-room:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) noRoom(cause error) error { return fmt.Errorf("%s: %w", s.whyFull(), cause) }

func (s *Store) announceRoom() {
	if s.roomWaiters > 0 {
		s.roomWaiters = 0
		close(s.room)
		s.room = make(chan struct{})
	}
}

// add puts entries into the pending group.
func (s *Store) add(entries []Entry, b *Batch) *Commit {
	if !s.fullSince.IsZero() {
		s.roomAgain()
	}
	g := s.pending
	idle := g.header.count == 0 || !b.Delay && !g.urgent
	g.begin()
	for i := range entries {
		s.addEntry(g, &entries[i])
	}
	if c := b.Channel; c != nil {
		s.addMark(g, c, entries[len(entries)-1].Number)
	}
	if !b.Delay {
		g.urgent = true
	}
	if idle || b.Delay && int64(len(g.segment)) > s.maxGroup/2 {
		s.wake()
	}
	return g.commit
}

// roomAgain is not part of add because its frame would be on ten thousand stacks.
func (s *Store) roomAgain() {
	s.log.Info("the queue has room again", "file", s.path, "after", time.Since(s.fullSince).Round(time.Millisecond))
	s.fullSince = time.Time{}
}

func (s *Store) addEntry(g *group, e *Entry) {
	source := e.Source
	if source.id == 0 {
		s.introduce(g, source)
	}
	env := envelope{source: source.id, seq: e.Seq, time: nanos(e.Time), part: e.Part, body: e.Body}
	switch {
	case e.Gap != nil:
		env.gap, env.seq = true, 0
		env.body = appendGap(s.scratch[:0], e.Gap)
		s.scratch = env.body
	case source.key.Agent == "":
		source.device.last++
		env.seq = source.device.last
		source.device.newest = env.time
	}
	before := len(g.segment)
	g.segment = appendRecord(g.segment, &env)
	if g.header.oldest == noTime || env.time != noTime && env.time < g.header.oldest {
		g.header.oldest = env.time
	}
	g.header.count++
	if source.group != g {
		source.group, source.tally = g, len(g.tallies)
		g.tallies = append(g.tallies, tally{source: source})
	}
	t := &g.tallies[source.tally]
	t.records++
	t.bytes += uint64(len(g.segment) - before)
}

// introduce gives a source its number, with its first record.
func (s *Store) introduce(g *group, source *Source) {
	s.ids.number(source)
	s.matchNew(source)
	g.sources = append(g.sources, source)
}

func (s *Store) addMark(g *group, c *Channel, last uint64) {
	if c.id == 0 {
		s.channels.number(c)
		g.fresh = append(g.fresh, c)
	}
	if c.group != g {
		c.group, c.mark = g, len(g.marks)
		g.marks = append(g.marks, mark{channel: c.id})
		g.channels = append(g.channels, c)
	}
	c.last, c.commit = last, g.commit
	g.marks[c.mark].last = last
}
