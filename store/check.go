package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// Kind of a Finding.
type Kind string

// Kinds of findings.
const (
	FoundMeta       Kind = "meta"       // one of the file's two meta pages is damaged: the last commit may be missing
	FoundSegment    Kind = "segment"    // a segment's header or channel numbers can't be read; its records may be good
	FoundUnreadable Kind = "unreadable" // records can't be read
	FoundMissing    Kind = "missing"    // numbers of a device are not there, and no gap announces them
	FoundTwice      Kind = "twice"      // a number of a device comes again
	FoundHole       Kind = "hole"       // records are not there that a cursor has still to get
	FoundCursor     Kind = "cursor"     // a cursor's place is outside of the log
	FoundMailbox    Kind = "mailbox"    // a value of the mailbox can't be read
)

// Finding is something that is wrong with a queue. Fields that say nothing are
// zero.
type Finding struct {
	Kind          Kind
	Name          string    // of the cursor, or the key in the mailbox
	Source        SourceKey // whose records these are; Stream is empty
	FirstSeq      uint64    // their numbers
	LastSeq       uint64
	Records       uint64    // how many
	After, Before time.Time // times of the device's good records before and behind them
	From, To      uint64    // positions
}

// Survey is what was checked.
type Survey struct {
	Records  uint64
	Devices  int // this agent's own
	Cursors  int
	Letters  int // in the mailbox
	Segments int
	Bytes    int64 // of records
}

// Check reads all of the log and holds it against itself: checksums, the numbers of
// this agent's devices, cursors, the mailbox. The structure of the file's pages was
// checked by OpenImage. found is called for each finding, progress now and then with
// the bytes read and those that there are. The error is that of reading, or ctx's.
func (i *Image) Check(ctx context.Context, found func(Finding), progress func(done, total int64)) (Survey, error) {
	c := checker{ctx: ctx, store: i.store, found: found, progress: progress, devices: make(map[*device]*numbers)}
	if err := c.run(); err != nil {
		return c.survey, fmt.Errorf("store: checking %s: %w", i.store.path, err)
	}
	return c.survey, nil
}

type checker struct {
	ctx      context.Context
	store    *Store
	found    func(Finding)
	progress func(done, total int64)
	survey   Survey
	devices  map[*device]*numbers

	lost   stretch // the last one that can't be read
	holes  uint64  // how many there were
	losses uint64  // stretches that can't be read
}

// stretch of positions.
type stretch struct{ from, to, records uint64 }

// numbers is how far the numbers of a device have been followed.
type numbers struct {
	key           SourceKey
	seq           uint64
	time          time.Time
	holes, losses uint64 // before seq
}

func (c *checker) run() error {
	if err := c.meta(); err != nil {
		return err
	}
	c.cursors()
	if err := c.log(); err != nil {
		return err
	}
	c.ends()
	return c.mailbox()
}

// meta looks at the two pages one of which says where everything is.
func (c *checker) meta() error {
	f, err := os.Open(c.store.path)
	if err != nil {
		return err
	}
	defer f.Close()
	for id := range int64(2) {
		if _, err := readMeta(f, id*c.store.pageSize()); err != nil {
			c.found(Finding{Kind: FoundMeta})
		}
	}
	return nil
}

func (c *checker) cursors() {
	s := c.store
	c.survey.Cursors = len(s.cursors)
	for _, name := range slices.Sorted(maps.Keys(s.cursors)) {
		if acked := binary.LittleEndian.Uint64(s.cursors[name].saved); acked > s.end {
			c.found(Finding{Kind: FoundCursor, Name: name, From: acked, To: s.end})
		}
	}
}

func (c *checker) log() error {
	s := c.store
	first := s.end + 1
	for _, cursor := range s.cursors {
		first = min(first, cursor.acked+1)
	}
	if len(s.segments) > 0 {
		first = min(first, s.segments[0].first)
	}
	done := int64(0)
	t := traveller{
		byID: s.ids.byID, from: first, to: s.end,
		segment: func(at *segmentCursor) bool {
			c.segment(at)
			done += int64(len(at.value()))
			if c.progress != nil {
				c.progress(done, s.live)
			}
			return c.ctx.Err() == nil
		},
		each: func(v *visit) bool {
			c.visit(v)
			return true
		},
		hole: func(from, to uint64) bool {
			c.hole(from, to)
			return c.ctx.Err() == nil
		},
	}
	if err := t.run(s); err != nil {
		return err
	}
	c.tellLost()
	return c.ctx.Err()
}

func (c *checker) segment(at *segmentCursor) {
	c.survey.Segments++
	value := at.value()
	c.survey.Bytes += int64(len(value))
	h, ok := parseHeader(value)
	if ok {
		marks := value[headerSize+h.records:]
		ok = h.first == at.first() && checksum(marks) == h.marksum && parseMarks(marks, func(mark) {})
	}
	if !ok {
		c.found(Finding{Kind: FoundSegment, From: at.first()})
	}
}

func (c *checker) visit(v *visit) {
	e := &v.envelope
	key, known := keyOf(c.store.ids.byID, e)
	if v.what == stepDamaged || !known {
		c.lose(v.position-max(v.lost, 1)+1, v.position)
		return
	}
	c.tellLost()
	c.survey.Records++
	if e.gap || key.Agent != "" {
		return
	}
	c.number(c.store.ids.byID[e.source].device, key, e)
}

func (c *checker) lose(from, to uint64) {
	if c.lost.records == 0 || c.lost.to+1 != from {
		c.tellLost()
		c.losses++
		c.lost = stretch{from: from}
	}
	c.lost.to = to
	c.lost.records += to - from + 1
}

func (c *checker) tellLost() {
	if l := c.lost; l.records > 0 {
		c.found(Finding{Kind: FoundUnreadable, Records: l.records, From: l.from, To: l.to})
		c.lost = stretch{}
	}
}

// number holds a record of our own device against the one before.
func (c *checker) number(d *device, key SourceKey, e *envelope) {
	n := c.devices[d]
	when := fromNanos(e.time)
	if n == nil {
		key.Stream = ""
		n = &numbers{key: key, seq: e.seq - 1, holes: c.holes, losses: c.losses}
		c.devices[d] = n
	}
	switch {
	case e.seq <= n.seq:
		c.found(Finding{Kind: FoundTwice, Source: n.key, FirstSeq: e.seq, LastSeq: e.seq, Records: 1, After: n.time, Before: when})
		return
	case e.seq > n.seq+1:
		c.gone(n, e.seq-1, when)
	}
	n.seq, n.time, n.holes, n.losses = e.seq, when, c.holes, c.losses
}

// gone tells of numbers up to last that are not there. Those that were dropped are
// announced by the cursors that they were dropped from.
func (c *checker) gone(n *numbers, last uint64, before time.Time) {
	f := Finding{Source: n.key, FirstSeq: n.seq + 1, LastSeq: last, Records: last - n.seq, After: n.time, Before: before}
	switch {
	case n.losses != c.losses:
		f.Kind = FoundUnreadable
	case n.holes != c.holes:
		return
	default:
		f.Kind = FoundMissing
	}
	c.found(f)
}

// ends holds the last record of each device against the last number given.
func (c *checker) ends() {
	c.survey.Devices = len(c.devices)
	list := make([]*device, 0, len(c.devices))
	for d := range c.devices {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *device) int { return int(a.id) - int(b.id) })
	for _, d := range list {
		if n := c.devices[d]; d.last > n.seq {
			c.gone(n, d.last, time.Time{})
		}
	}
}

// hole is where records were freed or dropped. Cursors have passed them, or know
// that they are missing.
func (c *checker) hole(from, to uint64) {
	c.holes++
	for _, name := range slices.Sorted(maps.Keys(c.store.cursors)) {
		cursor := c.store.cursors[name]
		start := max(from, cursor.acked+1)
		for _, m := range cursor.missing {
			if start > m.from && start <= m.to {
				start = m.to + 1
			}
		}
		if start <= to {
			c.found(Finding{Kind: FoundHole, Name: name, From: start, To: to, Records: to - start + 1})
		}
	}
}

func (c *checker) mailbox() error {
	letters, err := (&Mailbox{store: c.store}).All()
	c.survey.Letters = len(letters)
	for i := range letters {
		if letters[i].Damaged {
			c.found(Finding{Kind: FoundMailbox, Name: letters[i].Key})
		}
	}
	return err
}
