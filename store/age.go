package store

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mcp-edge/edge-agent/record"
)

// Clock tells how much time has passed, also across restarts. It may be used
// concurrently.
type Clock interface {
	Now() Instant
}

// Instant is a point in time that a later process can measure from.
type Instant struct {
	Boot   string        // names the time from one boot of the machine to the next
	Up     time.Duration // since some moment of it; nobody can set the clock that tells
	Wall   time.Time
	Synced bool // Wall can be trusted
}

// runClock is the Clock of a store that was given none: each start counts as a boot.
type runClock struct{ start time.Time }

func (c runClock) Now() Instant {
	return Instant{Boot: c.start.String(), Up: time.Since(c.start), Wall: time.Now()}
}

// Records expire by time that has certainly passed since they came, and not by what
// a wall clock says: that may jump by years. So now and then a stamp notes when all
// records up to a position had come; records behind the last stamp count as new.
//
// How long ago a stamp was is known exactly within one boot of the machine. From one
// boot to the next it is known only if the clock was synchronised both times;
// otherwise the time between counts as none, and records stay longer than they had
// to.
type ages struct {
	clock  Clock
	step   time.Duration // between stamps in the file; 0: nobody asks, nothing is noted
	stamps []stamp       // in the order of time; the last one moves along until it is a step behind the one before
	edits  uint64        // changes that the file should have
	saved  uint64        // of them, those that it has
	moved  bool          // the last stamp, since then: the file learns of it at the end
}

type stamp struct {
	position uint64
	boot     uint64 // hash
	up       time.Duration
	wall     int64
	synced   bool
}

const (
	maxStamps = 128 // beyond, the oldest ones come to lie further apart
	stampStep = 32  // stamps in the shortest age that is asked for
	minStep   = 5 * time.Second
)

func newStamp(position uint64, at Instant) stamp {
	h := fnv.New64a()
	_, _ = h.Write([]byte(at.Boot))
	return stamp{position: position, boot: h.Sum64(), up: at.Up, wall: nanos(at.Wall), synced: at.Synced}
}

// since is how long it took from s to a later one, at least.
func (s stamp) since(later stamp) time.Duration {
	switch {
	case s.boot == later.boot:
		return max(later.up-s.up, 0)
	case s.synced && later.synced && s.wall != noTime && later.wall > s.wall:
		return time.Duration(min(uint64(later.wall)-uint64(s.wall), math.MaxInt64))
	}
	return 0
}

// ask makes it known, from now on, when records are that old. end is the newest.
func (a *ages) ask(age time.Duration, end, oldest uint64) {
	step := max(age/stampStep, minStep)
	if a.step == 0 || step < a.step {
		a.step = step
	}
	a.note(a.now(end), oldest)
}

func (a *ages) now(position uint64) stamp { return newStamp(position, a.clock.Now()) }

// note says that everything up to now's position has come. oldest is the first
// position that still matters.
func (a *ages) note(now stamp, oldest uint64) {
	n := len(a.stamps)
	switch {
	case a.step == 0, now.position < oldest:
		return
	case n > 0 && a.stamps[n-1].position >= now.position && a.stamps[n-1].boot == now.boot:
		return // from one boot to the next there is one of the same position, to count on from
	case n > 1 && a.stamps[n-2].since(now) < a.step && a.stamps[n-2].boot == now.boot && a.stamps[n-1].boot == now.boot:
		a.stamps[n-1], a.moved = now, true
		return
	}
	gone := 0
	for gone < n && a.stamps[gone].position < oldest {
		gone++
	}
	a.stamps = append(a.stamps[gone:], now)
	if len(a.stamps) > maxStamps {
		a.thin()
	}
	a.edits++
}

// thin takes every second stamp out of the older half: what it covered counts as
// having come with the next one.
func (a *ages) thin() {
	kept := a.stamps[:0]
	half := len(a.stamps) / 2
	for i, s := range a.stamps {
		if i >= half || i%2 == 1 {
			kept = append(kept, s)
		}
	}
	a.stamps = kept
}

// before is the position up to which all records are at least so old, and how long
// it is until a stamp's records behind from become so.
func (a *ages) before(age time.Duration, now stamp, from uint64) (position uint64, wait time.Duration) {
	least, next := time.Duration(0), now
	wait = math.MaxInt64
	for _, s := range slices.Backward(a.stamps) {
		least = max(least+s.since(next), s.since(now))
		if least >= age {
			return s.position, wait
		}
		if s.position > from {
			wait = age - least
		}
		next = s
	}
	return 0, wait
}

// Stamps in the file, under ageBucket and ageKey, one after another:
//
//	position u64, boot u64, up u64 nanoseconds, wall u64, synced u8
const stampSize = 33

func (a *ages) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, len(a.stamps)*stampSize)
	for _, s := range a.stamps {
		b = le.AppendUint64(b, s.position)
		b = le.AppendUint64(b, s.boot)
		b = le.AppendUint64(b, uint64(s.up))
		b = le.AppendUint64(b, uint64(s.wall))
		b = append(b, 0)
		if s.synced {
			b[len(b)-1] = 1
		}
	}
	return b
}

// decode takes what it can use: without stamps, records count as having come now.
func (a *ages) decode(b []byte, end uint64) {
	le := binary.LittleEndian
	for last := uint64(0); len(b) >= stampSize; b = b[stampSize:] {
		s := stamp{
			position: le.Uint64(b), boot: le.Uint64(b[8:]), up: time.Duration(le.Uint64(b[16:])), wall: int64(le.Uint64(b[24:])), synced: b[32] == 1,
		}
		if s.position < last || s.position > end || len(a.stamps) == maxStamps {
			return
		}
		a.stamps, last = append(a.stamps, s), s.position
	}
}

func (s *Store) loadAges(tx *bolt.Tx) error {
	if b := tx.Bucket([]byte(ageBucket)); b != nil {
		s.ages.decode(b.Get([]byte(ageKey)), s.end)
	}
	if s.cfg.Keep > 0 {
		s.ages.ask(s.cfg.Keep, s.end, s.oldest())
	}
	return nil
}

func (p *plan) putAges(tx *bolt.Tx) error {
	if p.ages == nil {
		return nil
	}
	b, err := tx.CreateBucketIfNotExists([]byte(ageBucket))
	if err != nil {
		return err
	}
	return b.Put([]byte(ageKey), p.ages)
}

// planAge lets go of what is too old for a cursor that asked for it: of that cursor
// only, and not of what is handed out.
func (s *Store) planAge(p *plan) {
	if s.ages.step == 0 {
		return
	}
	now := s.ages.now(s.end)
	for _, c := range s.active {
		if c.maxAge == 0 {
			continue
		}
		to, _ := s.ages.before(c.maxAge, now, c.read)
		at, _ := c.present(c.read, max(c.read, min(to, s.end)))
		to = s.reach(at, min(to, s.end))
		p.aged = append(p.aged, p.lossesOf(c, at, to, record.GapAge)...)
	}
}

// present is the first stretch behind a position, up to a limit, that the cursor is
// not missing already.
func (c *Cursor) present(from, limit uint64) (begin, end uint64) {
	begin, end = from, limit
	for i := range c.missing {
		m := &c.missing[i]
		switch {
		case m.to <= begin:
		case m.from <= begin:
			begin = min(m.to, limit)
		default:
			return begin, min(m.from, limit)
		}
	}
	return begin, end
}

// reach bounds what one commit goes through, for the producers' sake.
func (s *Store) reach(from, to uint64) uint64 {
	left := int64(4 << 20)
	for i := s.segmentAt(from + 1); i < len(s.segments) && s.segments[i].first <= to; i++ {
		if left -= s.segments[i].bytes; left <= 0 {
			return min(to, s.segments[i].last)
		}
	}
	return to
}

// ageWait is how long it is until records become too old for a cursor.
func (s *Store) ageWait() time.Duration {
	wait := time.Duration(math.MaxInt64)
	if s.ages.step == 0 {
		return wait
	}
	now := s.ages.now(s.end)
	for _, c := range s.active {
		if c.maxAge == 0 || c.read >= s.end {
			continue
		}
		to, more := s.ages.before(c.maxAge, now, c.read)
		if from, upTo := c.present(c.read, min(to, s.end)); from < upTo {
			return 0
		}
		wait = min(wait, more)
	}
	return wait
}

// tellAged reads what is too old, for the gap to tell it.
func (p *plan) tellAged(tx *bolt.Tx) {
	var e envelope
	for _, l := range p.aged {
		for at := findSegment(tx, l.from+1); at.found() && at.first() <= l.to; at.next() {
			w := at.walk(uint32(len(p.byID)))
			w.skip(l.from)
			for before := len(w.rest); w.pos < l.to; before = len(w.rest) {
				what, _ := w.next(&e)
				if what == stepEnd {
					break
				}
				if l.covers(w.pos) && int(e.source) < len(l.takes) && l.takes[e.source] {
					l.take(&e, p.byID[e.source].device.id, uint64(before-len(w.rest)))
				}
			}
		}
	}
}
