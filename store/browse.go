package store

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Query says what Browse shows. The zero value is everything in the file.
type Query struct {
	From, To uint64 // positions, both inclusive; 0: the oldest, and the newest on disk when Browse begins

	// Since and Until bound the records' times, the first inclusive, the second not;
	// zero: no bound. A record without a time is shown only if there is neither.
	Since, Until time.Time

	// Match tells which sources; nil: all. It is called once for each source, under
	// the store's lock, as CursorConfig.Match is.
	Match func(SourceKey) bool

	// Progress, unless nil, is called from time to time with the position up to
	// which the file has been gone through, also where nothing is shown.
	Progress func(position uint64)
}

// One transaction of Browse goes through this many records at most, and shows about
// this many bytes: bbolt can't use freed pages again, nor the store give the file
// back, while it lasts.
const (
	browseRecords = 4096
	browseBytes   = 1 << 20
)

// Browse goes through the records in the file in the order of their positions,
// delivered and undelivered ones alike, for people and tools. It moves no cursor,
// holds nothing back from being freed, and takes about 1 MiB of memory and as little
// of the file at a time, however slow the loop's body is: what is freed meanwhile is
// left out, and so is what comes after it has begun. What can't be read is shown as
// an Item with a Gap (reason "damage") if its device can be told, and left out
// otherwise.
//
// An item's Body is valid until the next one. The last element may have an error and
// no item: of ctx, of the file, or ErrClosed. To go on later, begin with From behind
// the last item's position.
//
// It needs no Run, may be called by several at a time, and works until Close.
func (s *Store) Browse(ctx context.Context, q Query) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		b := s.newBrowser(q)
		for b.scan.pos < b.to {
			items, err := b.next(ctx)
			if err != nil {
				yield(Item{}, fmt.Errorf("store: browsing: %w", err))
				return
			}
			for i := range items {
				if b.shows(&items[i]) && !yield(items[i], nil) {
					return
				}
			}
			if q.Progress != nil {
				q.Progress(b.scan.pos)
			}
		}
	}
}

// Range is where the records in the file stand: from the oldest to the newest that
// is on disk. oldest is newest+1 if there are none.
func (s *Store) Range() (oldest, newest uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.oldest(), s.end
}

// browser is a Browse under way.
type browser struct {
	store        *Store
	to           uint64
	since, until int64 // noTime: no bound
	scan         scan
	items        []Item
}

func (s *Store) newBrowser(q Query) *browser {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &browser{store: s, to: min(cmp.Or(q.To, s.end), s.end), since: nanos(q.Since), until: nanos(q.Until)}
	b.scan.pos = max(q.From, s.oldest()) - 1
	b.scan.byID = s.ids.byID
	b.scan.takes = make([]bool, len(s.ids.byID))
	for id, source := range s.ids.byID {
		b.scan.takes[id] = source != nil && (q.Match == nil || q.Match(source.key))
	}
	return b
}

func (b *browser) next(ctx context.Context) ([]Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, sc := b.store, &b.scan
	s.mu.Lock()
	closed := s.closed
	b.leap()
	s.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	sc.limit = min(b.to, sc.pos+browseRecords)
	sc.records, sc.bytes = browseRecords, browseBytes
	sc.sizes, sc.bodies, sc.used, sc.damage = sc.sizes[:0], sc.bodies[:0], 0, damage{}
	items, err := sc.run(s, b.items[:0])
	b.items = items
	return items, err
}

// leap passes by segments that hold nothing old enough, and what is in no segment.
func (b *browser) leap() {
	list := b.store.segments
	i, _ := slices.BinarySearchFunc(list, b.scan.pos+1, func(seg segment, pos uint64) int { return cmp.Compare(seg.last, pos) })
	for ; i < len(list); i++ {
		if seg := &list[i]; b.until == noTime || seg.apart || seg.oldest == noTime || seg.oldest < b.until {
			b.scan.pos = max(b.scan.pos, seg.first-1)
			return
		}
	}
	b.scan.pos = b.to
}

func (b *browser) shows(item *Item) bool {
	if b.since == noTime && b.until == noTime {
		return true
	}
	at := nanos(item.Time)
	return at != noTime && at >= b.since && (b.until == noTime || at < b.until)
}
