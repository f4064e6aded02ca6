package store

import (
	"math"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mcp-edge/edge-agent/record"
)

// victim is a segment that is dropped, and who loses by it.
type victim struct {
	segment segment
	losses  []*loss
}

// loss is what one cursor loses: one stretch of the log.
type loss struct {
	cursor   *Cursor
	takes    []bool    // of the cursor
	reason   string    // of the gap
	before   missing   // as it is now; empty: the stretch is new
	after    missing   // as it will be
	others   []missing // of the cursor, as they are now
	from, to uint64    // positions that are lost now
	lost     load
	counts   map[droppedKey]droppedCount
}

// canFree tells whether a commit could make room now.
func (s *Store) canFree() bool {
	if len(s.segments) > 0 && s.done(&s.segments[0]) {
		return true
	}
	for _, seg := range s.segments {
		if _, may := s.holders(seg); may != keep {
			return may == drop
		}
	}
	return false
}

// planDrop chooses segments to drop, the oldest first, until the next group has
// room.
func (s *Store) planDrop(p *plan, covered uint64) {
	need := s.shortage(p.group.amount())
	for i := range p.free {
		need.sub(&p.free[i])
	}
	for _, seg := range s.segments[len(p.free):] {
		if !need.some() || seg.last > covered {
			return
		}
		holders, may := s.holders(seg)
		switch may {
		case stop:
			return
		case keep:
			continue
		case drop:
		}
		v := victim{segment: seg}
		for _, c := range holders {
			v.losses = append(v.losses, p.lossesOf(c, seg.first-1, seg.last, record.GapDropOldest)...)
		}
		p.victims = append(p.victims, v)
		need.sub(&seg)
	}
}

// raise keeps the cursor from reading from a position on, until unfence.
func (c *Cursor) raise(position uint64) {
	if c.fence == 0 || position < c.fence {
		c.fence = position
	}
}

type verdict uint8

const (
	drop verdict = iota
	keep         // a cursor has handed records of it out: later ones may go
	stop         // a cursor that blocks has yet to read it, and all behind it
)

// holders are the cursors that have yet to deliver a segment.
func (s *Store) holders(seg segment) (list []*Cursor, may verdict) {
	for _, c := range s.cursors {
		switch {
		case c.acked >= seg.last || c.missesAll(&seg):
		case c.held || !c.drops:
			return nil, stop
		case seg.first <= c.read:
			may = keep
		default:
			list = append(list, c)
		}
	}
	return list, may
}

// reach is how far a cursor that drops may read before it acknowledges. Segments
// that it has handed out a record of can't be dropped, whatever else is in them, so
// all such cursors together may hold half of what the queue takes, and one a quarter
// at most, but each one segment.
func (c *Cursor) reach() uint64 {
	s := c.store
	if !c.drops {
		return math.MaxUint64
	}
	n := int64(0)
	for _, other := range s.active {
		if other.drops {
			n++
		}
	}
	share := max(4, 2*n)
	left := amount{bytes: s.limit() / share, records: math.MaxInt64}
	if s.cfg.MaxRecords > 0 {
		left.records = s.cfg.MaxRecords / share
	}
	first := s.segmentAt(c.acked + 1)
	for i := first; i < len(s.segments); i++ {
		left.sub(&s.segments[i])
		if i > first && (left.bytes < 0 || left.records < 0) {
			return s.segments[i-1].last
		}
	}
	return math.MaxUint64
}

// lossesOf are the losses of a cursor between two positions, of what it is not missing
// already, and keep it from reading there.
func (p *plan) lossesOf(c *Cursor, from, to uint64, reason string) (list []*loss) {
	for from < to {
		begin, end := c.present(from, to)
		if begin < end {
			list = append(list, p.lossOf(c, begin, end, reason))
			c.raise(begin + 1)
		}
		from = end
	}
	return list
}

// lossOf is the loss of a cursor that the positions behind from, up to to, belong to:
// one begun in this plan, one of before that grows, or a new one.
func (p *plan) lossOf(c *Cursor, from, to uint64, reason string) *loss {
	for _, l := range p.losses {
		if l.cursor == c && l.after.to == from {
			l.after.to, l.to = to, to
			return l
		}
	}
	l := &loss{cursor: c, takes: c.takes, reason: reason, from: from, to: to, after: missing{from: from, to: to, reason: reason}, others: slices.Clone(c.missing)}
	for _, m := range c.missing {
		// What goes for another reason is a stretch of its own, so that each gap
		// names a run of numbers, unless that became too many.
		if !m.told && m.to == from && (m.reason == reason || len(c.missing) >= maxStretches) {
			l.before, l.after.from = m, m.from
		}
	}
	p.losses = append(p.losses, l)
	return l
}

// lose reads what the victims hold, for the gaps to tell it, and puts the gaps
// into the file.
func (p *plan) lose(tx *bolt.Tx) error {
	for _, l := range p.losses {
		l.after.records, l.after.gaps = l.before.records, slices.Clone(l.before.gaps)
		l.lost, l.counts = load{}, make(map[droppedKey]droppedCount)
	}
	for i := range p.victims {
		p.victims[i].tell(tx, p.byID)
	}
	p.tellAged(tx)
	for _, l := range p.losses {
		list := l.others
		for _, more := range p.losses {
			if more.cursor == l.cursor {
				list = more.merge(list)
			}
		}
		p.gaps[l.cursor.name] = encodeMissing(list)
	}
	return nil
}

func (v *victim) tell(tx *bolt.Tx, byID []*Source) {
	at := findSegment(tx, v.segment.first)
	if !at.found() || at.first() != v.segment.first {
		return
	}
	var e envelope
	w := at.walk(uint32(len(byID)))
	for before := len(w.rest); ; before = len(w.rest) {
		what, _ := w.next(&e)
		if what == stepEnd {
			return
		}
		for _, l := range v.losses {
			if l.covers(w.pos) && int(e.source) < len(l.takes) && l.takes[e.source] {
				l.take(&e, byID[e.source].device.id, uint64(before-len(w.rest)))
			}
		}
	}
}

func (l *loss) covers(position uint64) bool { return position > l.from && position <= l.to }

func (l *loss) take(e *envelope, device uint32, size uint64) {
	l.after.lose(device, e, l.reason)
	l.lost.add(1, size)
	if !e.gap {
		key := droppedKey{device, l.reason}
		n := l.counts[key]
		n.add(droppedCount{1, e.time, e.time})
		l.counts[key] = n
	}
}

// merge puts the stretch into a cursor's list, in its place.
func (l *loss) merge(list []missing) []missing {
	for i := range list {
		if list[i].from == l.after.from {
			list = slices.Clone(list)
			list[i] = l.after
			return list
		}
		if list[i].from > l.after.from {
			return slices.Insert(slices.Clone(list), i, l.after)
		}
	}
	return append(slices.Clone(list), l.after)
}

// publishLosses tells the cursors what has been dropped.
func (s *Store) publishLosses(p *plan) {
	for _, l := range p.losses {
		c := l.cursor
		c.missing = l.merge(c.missing)
		c.unread.sub(l.lost.records, l.lost.bytes)
		total := uint64(0)
		for key, n := range l.counts {
			sum := c.dropped[key]
			sum.add(n)
			c.dropped[key] = sum
			total += n.records
		}
		if total == 0 {
			continue
		}
		why := "the queue is full: the oldest records are dropped, as when_full says"
		if l.reason == record.GapAge {
			why = "records were not delivered in time: they are dropped, as max_age says"
		}
		s.log.Warn(why, "cursor", c.name, "records", total, "devices", len(l.counts), "file", s.path)
	}
}

// unfence lets cursors read on after an attempt to commit.
func (s *Store) unfence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.active {
		if c.fence != 0 {
			c.fence = 0
			c.wake()
		}
	}
}

// becomeFull notes that nothing can be freed for an Append that waits.
func (s *Store) becomeFull() {
	s.fullSince = time.Now()
	s.log.Warn("the queue is full: records are accepted again when there is room", "file", s.path, "why", s.whyFull())
}
