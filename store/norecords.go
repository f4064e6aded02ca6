package store

import (
	"iter"
	"maps"
	"time"
)

// commitRest commits what needs little room while the records of g wait for the disk: the
// places of cursors, what they have freed or dropped, the mailbox. It reports whether
// that has made room, so that g is to be tried again. Only the writer calls it.
func (s *Store) commitRest(g *group) (freed bool, err error) {
	h := s.takeAside(g)
	before := s.liveBytes()
	if err := s.commit(h); err != nil {
		s.mu.Lock()
		g.mail, g.sides = h.mail, h.sides
		s.mu.Unlock()
		return false, err
	}
	return s.liveBytes() < before, nil
}

// lastAside saves what can be, of a group that is about to be given up.
func (s *Store) lastAside(g *group, cause error) {
	if isDiskFull(cause) {
		_, _ = s.commitRest(g)
	}
}

func (s *Store) liveBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// takeAside makes a group of all that waits and is no record.
func (s *Store) takeAside(g *group) *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &group{
		header: header{first: s.end + 1, oldest: noTime}, commit: &Commit{done: make(chan struct{})},
		waiting: g, mail: g.mail, sides: g.sides,
	}
	next := s.pending
	if h.mail == nil {
		h.mail = next.mail
	} else {
		maps.Copy(h.mail, next.mail)
	}
	h.sides = append(h.sides, next.sides...)
	g.mail, g.sides, next.mail, next.sides = nil, nil, nil, nil
	if s.covered < s.end {
		h.checkpoint = s.encodeCheckpoint(s.end, s.unwritten(g, next))
	}
	return h
}

// restDue tells whether something waits that commitRest would commit.
func (s *Store) restDue(g *group) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.pending
	late := func(since time.Time) bool { return time.Since(since) >= max(s.cfg.CommitDelay, minAckDelay) }
	return len(g.mail) > 0 || len(next.mail) > 0 && (next.urgent || late(next.since)) || len(s.forgotten) > 0 ||
		!s.ackedSince.IsZero() && late(s.ackedSince)
}

// unwritten are the numbers that devices have on disk, of those that have more in
// groups that are not.
func (s *Store) unwritten(groups ...*group) map[*device]uint64 {
	numbers := make(map[*device]uint64)
	for _, g := range groups {
		if g.header.count == 0 {
			continue
		}
		rest := g.segment[headerSize:]
		if g.header.records > 0 {
			rest = rest[:g.header.records] // it is sealed
		}
		var e envelope
		for size := e.take(rest); size > 0; size = e.take(rest) {
			rest = rest[size:]
			source := s.ids.byID[e.source]
			if source.key.Agent != "" || e.gap {
				continue
			}
			if _, known := numbers[source.device]; !known {
				numbers[source.device] = e.seq - 1
			}
		}
	}
	return numbers
}

// part is a segment.
type part struct {
	header header
	value  []byte
}

// segments are what the group's records are stored as.
func (g *group) segments() iter.Seq[part] {
	return func(yield func(part) bool) {
		if len(g.parts) == 0 && g.header.count > 0 {
			yield(part{g.header, g.segment})
			return
		}
		for _, p := range g.parts {
			if !yield(p) {
				return
			}
		}
	}
}

// partSize is how long a segment should be that finds room nearly everywhere.
const partSize = 32 << 10

// split makes short segments of the group's one: a value needs a stretch of free pages
// as long as it is.
func (g *group) split() {
	if g.header.count == 0 {
		return
	}
	rest := g.segment[headerSize:][:g.header.records]
	first := g.header.first
	var e envelope
	for len(rest) > 0 {
		h := header{first: first, oldest: noTime}
		end := 0
		for end < len(rest) && end < partSize {
			size := e.take(rest[end:])
			if size == 0 {
				g.parts = nil
				return // can't be: this process wrote it
			}
			end += size
			h.count++
			if h.oldest == noTime || e.time != noTime && e.time < h.oldest {
				h.oldest = e.time
			}
		}
		h.records = uint32(end)
		value := append(make([]byte, headerSize, headerSize+end), rest[:end]...)
		if rest = rest[end:]; len(rest) == 0 {
			// A channel's last number is that of the last part.
			value = append(value, g.segment[headerSize+g.header.records:]...)
			h.marks = g.header.marks
		}
		h.marksum = checksum(value[headerSize+h.records:])
		h.put(value)
		g.parts = append(g.parts, part{h, value})
		first += uint64(h.count)
	}
}
