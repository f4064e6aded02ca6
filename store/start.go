package store

import (
	"fmt"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Start is where a cursor begins that has no place in the file yet. The zero value
// is the oldest record of the file.
type Start struct {
	// Newest: behind all that is in the file; only what comes from now on is read.
	Newest bool

	// Time, unless zero: at the first record, of those that the cursor takes, whose
	// time is this or later. If there is none, it begins as with Newest, so a time
	// in the future lets nothing wait for it. Records without a time are none.
	Time time.Time
}

// ParseStart reads "oldest", "newest", or a time such as 2026-11-29T06:00:00Z
// (RFC 3339). Empty is "oldest".
func ParseStart(s string) (Start, error) {
	switch s {
	case "", "oldest":
		return Start{}, nil
	case "newest":
		return Start{Newest: true}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || at.Year() < 1678 || at.Year() > 2261 {
		return Start{}, fmt.Errorf("is no start; write \"oldest\", \"newest\", or a time such as \"2026-11-29T06:00:00Z\"")
	}
	return Start{Time: at}, nil
}

// begin gives a new cursor its place.
func (s *Store) begin(c *Cursor, start Start) (err error) {
	switch {
	case start.Newest:
		c.acked = s.end
	case start.Time.IsZero():
		c.acked = s.oldest() - 1
	default:
		c.acked, err = s.before(c, nanos(start.Time))
	}
	if err == nil {
		s.log.Info("a new cursor begins", "cursor", c.name, "behind", c.acked, "newest", s.end, "file", s.path)
	}
	return err
}

// before is the position before the first record of that time or later, or end. It
// reads everything before that, as times need not rise.
func (s *Store) before(c *Cursor, at int64) (position uint64, err error) {
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	position = s.end
	err = s.view(func(tx *bolt.Tx) error {
		var e envelope
		for seg := findSegment(tx, 0); seg.found(); seg.next() {
			w := seg.walk(uint32(len(s.ids.byID)))
			for {
				what, _ := w.next(&e)
				if what == stepEnd {
					break
				}
				if what == stepRecord && e.time != noTime && e.time >= at && c.wants(e.source) {
					position = w.pos - 1
					return nil
				}
			}
		}
		return nil
	})
	return position, err
}

// wants tells whether the cursor takes a source of that id.
func (c *Cursor) wants(id uint32) bool { return int(id) < len(c.takes) && c.takes[id] }
