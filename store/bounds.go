package store

import (
	"cmp"
	"slices"
)

// amount is how much of the log something is.
type amount struct{ bytes, records int64 }

func (a amount) some() bool { return a.bytes > 0 || a.records > 0 }

func (a *amount) sub(seg *segment) {
	a.bytes -= seg.bytes
	a.records -= seg.records()
}

func (seg *segment) records() int64 { return int64(seg.last-seg.first) + 1 }

// shortage is what has to go for another full group to fit behind one of this size;
// not more than nothing: it fits.
func (s *Store) shortage(group amount) amount {
	short := amount{bytes: s.live + group.bytes + max(s.maxGroup, s.wanted.bytes) - s.limit()}
	if s.cfg.MaxRecords > 0 {
		short.records = s.total + group.records + max(s.maxCount, s.wanted.records) - s.cfg.MaxRecords
	}
	return short
}

func (g *group) amount() amount {
	if g.waiting != nil {
		return g.waiting.amount()
	}
	return amount{bytes: int64(len(g.segment)), records: int64(g.header.count)}
}

// fits tells whether a batch has room beside what is in the file and on its way there.
func (s *Store) fits(batch amount) bool {
	pending := s.pending.amount()
	return s.live+s.writing.bytes+pending.bytes+batch.bytes <= s.limit() &&
		(s.cfg.MaxRecords == 0 || s.total+s.writing.records+pending.records+batch.records <= s.cfg.MaxRecords)
}

// overfull tells whether the pending group would be too large with a batch.
func (s *Store) overfull(batch amount) bool {
	pending := s.pending.amount()
	return pending.records > 0 && (pending.bytes+batch.bytes > s.maxGroup || pending.records+batch.records > s.maxCount)
}

// want notes what an Append waits for.
func (s *Store) want(batch amount) {
	s.wanted = amount{bytes: max(s.wanted.bytes, batch.bytes), records: max(s.wanted.records, batch.records)}
	s.wake()
}

// done tells whether every cursor has passed a segment, or will not get it.
func (s *Store) done(seg *segment) bool {
	for _, c := range s.cursors {
		if c.acked < seg.last && !c.missesAll(seg) {
			return false
		}
	}
	return true
}

// missesAll tells whether a cursor will get nothing of a segment that it has not
// acknowledged.
func (c *Cursor) missesAll(seg *segment) bool {
	if len(c.missing) == 0 {
		return false
	}
	from, upTo := c.present(max(seg.first-1, c.acked), seg.last)
	return from == upTo
}

// free are the segments at the front that nobody waits for any more: with keep, those
// that are old enough or whose room is needed.
func (s *Store) free(g *group, covered uint64) []segment {
	kept := uint64(0) // up to here, nothing is kept any longer
	if s.cfg.Keep == 0 {
		kept = s.end
	} else if len(s.ages.stamps) > 0 {
		kept, _ = s.ages.before(s.cfg.Keep, s.ages.now(s.end), 0)
	}
	short := s.shortage(g.amount())
	n := 0
	for ; n < len(s.segments) && n < maxFree; n++ {
		seg := &s.segments[n]
		if seg.last > covered || seg.last > kept && !short.some() || !s.done(seg) {
			break
		}
		short.sub(seg)
	}
	return slices.Clone(s.segments[:n])
}

// kept is what is delivered to everybody and still there.
func (s *Store) kept() (kept amount) {
	for i := range s.segments {
		if !s.done(&s.segments[i]) {
			return kept
		}
		kept.bytes += s.segments[i].bytes
		kept.records += s.segments[i].records()
	}
	return kept
}

// segmentAt is the index of the first segment that ends at a position or behind it.
func (s *Store) segmentAt(position uint64) int {
	i, _ := slices.BinarySearchFunc(s.segments, position, func(seg segment, pos uint64) int { return cmp.Compare(seg.last, pos) })
	return i
}
