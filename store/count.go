package store

import (
	"context"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

// traveller goes through the log, or a part of it, in one transaction.
type traveller struct {
	byID     []*Source
	from, to uint64                       // positions, both included
	segment  func(at *segmentCursor) bool // before the records of a segment; nil: not told
	each     func(v *visit) bool          // for each record, or lost ones
	hole     func(from, to uint64) bool   // positions at which nothing stands
}

// visit is what the traveller comes upon. Valid during the call.
type visit struct {
	what     step
	position uint64 // of the record, or of the last one lost
	lost     uint64 // how many are, in stepDamaged
	size     int    // bytes in the log
	envelope envelope
}

// run calls the traveller's functions until one of them returns false.
func (t *traveller) run(s *Store) (err error) {
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	return s.view(func(tx *bolt.Tx) error {
		pos := t.from - 1
		for at := findSegment(tx, pos+1); pos < t.to; at.next() {
			next := t.to + 1
			if at.found() {
				next = min(next, at.first())
			}
			if next > pos+1 {
				if !t.hole(pos+1, next-1) {
					return nil
				}
				pos = next - 1
			}
			if !at.found() || pos >= t.to {
				return nil
			}
			if t.segment != nil && !t.segment(at) {
				return nil
			}
			var on bool
			if pos, on = t.through(at, pos); !on {
				return nil
			}
		}
		return nil
	})
}

// through visits the records of a segment that stand behind pos.
func (t *traveller) through(at *segmentCursor, pos uint64) (_ uint64, on bool) {
	w := at.walk(uint32(len(t.byID)))
	w.skip(pos)
	var v visit
	for w.pos < t.to {
		before := len(w.rest)
		v.what, v.lost = w.next(&v.envelope)
		if v.what == stepEnd {
			break
		}
		v.position, v.size = w.pos, before-len(w.rest)
		if !t.each(&v) {
			return w.pos, false
		}
	}
	return max(pos, w.pos), true
}

// keyOf is the source of an envelope; ok is false for one that the file does not
// name.
func keyOf(byID []*Source, e *envelope) (key SourceKey, ok bool) {
	if e.source == 0 || int(e.source) >= len(byID) {
		return SourceKey{}, false
	}
	return byID[e.source].key, true
}

// SourceCount sums up what is in the log of one device's stream.
type SourceCount struct {
	Key     SourceKey
	Records uint64 // without gaps
	Gaps    uint64 // announcements of missing records
	Bytes   uint64 // of both, with envelopes
	// Numbers and times of the first and the last record by position; seq 0: there
	// are gaps only.
	FirstSeq, LastSeq   uint64
	FirstTime, LastTime time.Time
}

// Tally is what Count has found.
type Tally struct {
	Sources    []SourceCount // in no order
	Next, End  uint64        // position to go on from; behind End there is nothing yet
	Unreadable uint64        // records that can't be read
}

// Count sums up the log from a position on, looking through about so many bytes;
// 0 means all. It moves no cursor and holds nothing; what is delivered meanwhile may
// be gone.
func (s *Store) Count(ctx context.Context, from uint64, bytes int) (Tally, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Tally{}, ErrClosed
	}
	end, byID := s.end, s.ids.byID
	s.mu.Unlock()
	sum := Tally{Next: max(from, 1), End: end}
	at := make(map[uint32]int)
	size := 0
	t := traveller{
		byID: byID, from: sum.Next, to: end,
		each: func(v *visit) bool {
			sum.Next = v.position + 1
			size += v.size
			sum.add(v, byID, at)
			return (bytes == 0 || size < bytes) && ctx.Err() == nil
		},
		hole: func(_, to uint64) bool {
			sum.Next = to + 1
			return true
		},
	}
	if err := t.run(s); err != nil {
		return sum, err
	}
	return sum, ctx.Err()
}

func (sum *Tally) add(v *visit, byID []*Source, at map[uint32]int) {
	key, ok := keyOf(byID, &v.envelope)
	if v.what == stepDamaged || !ok {
		sum.Unreadable += max(v.lost, 1)
		return
	}
	i, seen := at[v.envelope.source]
	if !seen {
		i = len(sum.Sources)
		at[v.envelope.source] = i
		sum.Sources = append(sum.Sources, SourceCount{Key: key})
	}
	sum.Sources[i].add(v)
}

func (c *SourceCount) add(v *visit) {
	when := fromNanos(v.envelope.time)
	if c.Records+c.Gaps == 0 {
		c.FirstTime = when
	}
	c.LastTime = when
	c.Bytes += uint64(v.size)
	if v.envelope.gap {
		c.Gaps++
		return
	}
	if c.Records++; c.Records == 1 {
		c.FirstSeq = v.envelope.seq
	}
	c.LastSeq = v.envelope.seq
}
