package store

import (
	"bytes"
	"encoding/binary"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"
)

// A cursor in the file:
//
//	acked     u64, position
//	end       u64, position up to which lag is counted
//	lag       u64 records, u64 bytes: between the two, that it takes
//	sources   u32, how many there were
//	taken     u64, hash of which of them it takes
//
// Lag is kept so that a start need not count a backlog. It is counted anew when
// the hash tells that the cursor takes other sources than before.
const savedSize = 44

func (c *Cursor) encode(g *group) []byte {
	lag := c.lag()
	for i := range g.tallies {
		if t := &g.tallies[i]; c.takes[t.source.id] {
			lag.add(t.records, t.bytes)
		}
	}
	le := binary.LittleEndian
	b := make([]byte, 0, savedSize)
	b = le.AppendUint64(b, c.acked)
	b = le.AppendUint64(b, g.end())
	b = le.AppendUint64(b, lag.records)
	b = le.AppendUint64(b, lag.bytes)
	b = le.AppendUint32(b, uint32(len(c.takes)))
	return le.AppendUint64(b, c.hash)
}

// worthSaving: a cursor of which nothing but end has changed is written now and
// then, so that a start has little to count.
func (c *Cursor) worthSaving(form []byte) bool {
	const often = 1 << 16 // records
	le := binary.LittleEndian
	return len(c.saved) != savedSize || !bytes.Equal(form[:8], c.saved[:8]) || !bytes.Equal(form[16:], c.saved[16:]) ||
		le.Uint64(form[8:]) > le.Uint64(c.saved[8:])+often
}

// matchNext asks for the source that has the next id; nil is id 0.
func (c *Cursor) matchNext(source *Source) {
	takes := source != nil && !source.key.NameLost() && (c.match == nil || c.match(source.key))
	c.takes = append(c.takes, takes)
	const prime = 0x100000001b3 // of FNV-1, 64 bits
	c.hash *= prime
	if takes {
		c.hash++
	}
}

// learn finds out what a cursor takes, and whether the lag in the file was counted
// by that.
func (s *Store) learn(c *Cursor) (counted bool) {
	le := binary.LittleEndian
	for i, source := range s.ids.byID {
		c.matchNext(source)
		if len(c.saved) == savedSize && le.Uint32(c.saved[32:]) == uint32(i+1) {
			counted = le.Uint64(c.saved[36:]) == c.hash
		}
	}
	return counted
}

// measure finds out how much of what a cursor takes is behind acked.
func (s *Store) measure(c *Cursor, counted bool) error {
	le := binary.LittleEndian
	from := c.acked
	c.unread = load{}
	if counted {
		from = le.Uint64(c.saved[8:])
		c.unread = load{le.Uint64(c.saved[16:]), le.Uint64(c.saved[24:])}
	}
	return s.count(c, from)
}

// count adds what the cursor takes behind a position to unread.
func (s *Store) count(c *Cursor, from uint64) (err error) {
	if from >= s.end {
		return nil
	}
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	return s.view(func(tx *bolt.Tx) error {
		var e envelope
		for at := findSegment(tx, from+1); at.found(); at.next() {
			w := at.walk(uint32(len(s.ids.byID)))
			w.skip(from)
			for before := len(w.rest); ; before = len(w.rest) {
				what, _ := w.next(&e)
				if what == stepEnd || w.pos > s.end {
					break
				}
				if int(e.source) < len(c.takes) && c.takes[e.source] && !c.misses(w.pos) {
					c.unread.add(1, uint64(before-len(w.rest)))
				}
			}
		}
		return nil
	})
}

func (c *Cursor) misses(position uint64) bool {
	for i := range c.missing {
		if m := &c.missing[i]; position > m.from && position <= m.to {
			return true
		}
	}
	return false
}
