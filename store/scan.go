package store

import (
	"errors"
	"fmt"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"

	"github.com/mcp-edge/edge-agent/record"
)

// scan reads a cursor's records out of the file. Bodies are copied: a read
// transaction held open until the consumer is done would keep freed pages from
// being used again, and the file would grow.
type scan struct {
	// The task, set by plan.
	limit   uint64 // position to read up to
	takes   []bool // by source id
	byID    []*Source
	records int
	bytes   int

	// What was found.
	pos    uint64   // everything up to here is dealt with
	sizes  []uint32 // in the log, of the items found
	bodies []byte   // of the items; valid until the next Read
	used   int      // bytes of bodies in this run
	damage damage

	place   place
	guesses int // in this run
}

// damage counts records that can't be read.
type damage struct {
	records uint64
	unknown uint64 // of them, those whose device can't be told
}

// place is where in the file the last scan ended: it spares the next one the walk
// through the segment.
type place struct {
	segment uint64 // first position
	length  int    // of its value, which changes when it is folded
	pos     uint64
	left    int // bytes of records behind pos
}

func (sc *scan) plan(c *Cursor, limit uint64, maxRecords, maxBytes int) {
	sc.limit, sc.pos = max(limit, c.read), c.read
	sc.takes, sc.byID = c.takes, c.store.ids.byID
	sc.records, sc.bytes = maxRecords, min(max(maxBytes, 1), maxFlight)
	sc.sizes, sc.used, sc.damage, sc.guesses = sc.sizes[:0], 0, damage{}, 0
}

// lose makes the next scan look for its place anew.
func (sc *scan) lose() { sc.place = place{} }

// run appends the items found to dst, until it meets one of its limits.
func (sc *scan) run(s *Store, dst []Item) (_ []Item, err error) {
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	err = s.view(func(tx *bolt.Tx) error {
		for at := findSegment(tx, sc.pos+1); sc.pos < sc.limit && !sc.full(); at.next() {
			if !at.found() || at.first() > sc.pos+1 {
				// Nothing in the file stands at this position. If it was dropped a
				// moment ago, handOut will find that out.
				gone := sc.limit
				if at.found() {
					gone = min(gone, at.first()-1)
				}
				sc.damage.records += gone - sc.pos
				sc.damage.unknown += gone - sc.pos
				sc.pos = gone
				if !at.found() {
					return nil
				}
			}
			dst = sc.readSegment(at, dst)
		}
		return nil
	})
	return dst, err
}

func (sc *scan) full() bool { return len(sc.sizes) >= sc.records || sc.used >= sc.bytes }

// readSegment reads from pos up to the end of the segment or a limit.
func (sc *scan) readSegment(at *segmentCursor, dst []Item) []Item {
	w := at.walk(uint32(len(sc.byID)))
	here := place{segment: at.first(), length: len(at.value())}
	if p := sc.place; p.segment == here.segment && p.length == here.length && p.pos == sc.pos {
		w.pos, w.rest = p.pos, w.rest[len(w.rest)-p.left:]
	} else {
		w.skip(sc.pos)
	}
	var e envelope
	for w.pos < sc.limit && !sc.full() {
		before := len(w.rest)
		what, lost := w.next(&e)
		if what == stepEnd {
			break
		}
		if what == stepDamaged {
			sc.damage.records += lost
			if e.source == 0 || e.gap || lost != 1 || sc.contradicted(at, &e, w.pos) {
				sc.damage.unknown += lost
				continue
			}
			e.gap = true // announces the record in its place
		}
		if int(e.source) < len(sc.takes) && sc.takes[e.source] {
			dst = append(dst, sc.item(w.pos, &e, what == stepDamaged))
			sc.sizes = append(sc.sizes, uint32(before-len(w.rest)))
		}
	}
	sc.pos = max(sc.pos, w.pos)
	here.pos, here.left = w.pos, len(w.rest)
	sc.place = here
	return dst
}

// maxGuesses bounds how often a run looks through a segment for what speaks against
// a guess.
const maxGuesses = 16

// contradicted tells whether the segment's other records speak against what a
// damaged one seems to be: a device's numbers rise.
func (sc *scan) contradicted(at *segmentCursor, guess *envelope, position uint64) bool {
	if sc.guesses++; sc.guesses > maxGuesses || int(guess.source) >= len(sc.byID) {
		return true
	}
	device := sc.byID[guess.source].device
	w := at.walk(uint32(len(sc.byID)))
	var e envelope
	for {
		switch what, _ := w.next(&e); {
		case what == stepEnd:
			return false
		case what == stepDamaged || e.gap || int(e.source) >= len(sc.byID) || sc.byID[e.source].device != device:
		case w.pos < position && e.seq >= guess.seq, w.pos > position && e.seq <= guess.seq:
			return true
		}
	}
}

func (sc *scan) item(position uint64, e *envelope, damaged bool) Item {
	item := Item{Position: position, Source: sc.byID[e.source], Seq: e.seq, Part: e.part, Time: fromNanos(e.time)}
	switch {
	case damaged:
		item.Seq = 0
		item.Gap = &record.Gap{From: e.seq, To: e.seq, Count: 1, Reason: record.GapDamage, First: item.Time, Last: item.Time}
	case e.gap:
		gap, _ := parseGap(e.body)
		item.Gap = &gap
	default:
		at := len(sc.bodies)
		sc.bodies = append(sc.bodies, e.body...)
		item.Body = sc.bodies[at:len(sc.bodies):len(sc.bodies)]
		sc.used += len(e.body)
	}
	return item
}

// errFault is what a fault while reading the file becomes.
var errFault = errors.New("reading the queue file failed, the disk may be failing")

// recoverFault turns a panic of bbolt over a damaged page, or a fault of the
// memory map (an I/O error, a file cut short), into an error. It is deferred with
// what SetPanicOnFault said before.
func recoverFault(panicOnFault bool, err *error) {
	debug.SetPanicOnFault(panicOnFault)
	switch r := recover().(type) {
	case nil:
	case interface{ Addr() uintptr }: // a fault of the memory map
		*err = fmt.Errorf("%w: %v", errFault, r)
	default:
		*err = fmt.Errorf("%w: %w: %v", errFault, ErrDamaged, r)
	}
}
