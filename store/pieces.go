package store

import (
	"cmp"
	"slices"
)

// piece is a stretch of the log that goes into the fresh file as one segment.
type piece struct {
	foundSegment
	last  uint64
	from  uint64 // first position taken; that of the segment if it is taken whole
	to    uint64
	whole bool // taken byte by byte, with whatever damage it has
}

// hole is a stretch of the log of which nothing is left, that a cursor still
// wanted.
type hole struct{ from, to uint64 } // both included

// choose decides what is taken from which segment: each position once. Current
// segments come first, with their damage, which whoever reads them announces.
// passed: positions up to it are delivered to everybody. end: the tree's last one,
// behind which there may be what its meta page does not know.
func (w *wreck) choose(passed, end uint64) (list []piece, err error) {
	slices.SortFunc(w.segments, func(a, b foundSegment) int {
		return cmp.Or(compareBool(b.now, a.now), cmp.Compare(a.first, b.first), cmp.Compare(b.count, a.count))
	})
	old := slices.IndexFunc(w.segments, func(s foundSegment) bool { return !s.now })
	if old < 0 {
		old = len(w.segments)
	}
	list = current(w.segments[:old])
	missing := w.lacks(segmentPrefix)
	// Damaged records are taken only where there is no good copy of them.
	for _, damaged := range []bool{false, true} {
		for _, s := range w.segments[old:] {
			last := s.first + uint64(s.count) - 1
			if s.first == 0 || !missing && s.first <= end || last <= passed || covered(list, s.first, last) {
				continue
			}
			frames, _, err := w.frames(s)
			if err != nil {
				return nil, err
			}
			p := piece{foundSegment: s, last: last}
			for _, r := range runs(frames, damaged) {
				list = p.fill(list, r.from, r.to)
			}
		}
	}
	return list, nil
}

// runs are the stretches of frames that follow on one another.
func runs(frames []frameAt, damaged bool) (list []hole) {
	for _, f := range frames {
		n := len(list)
		switch {
		case f.bad && !damaged:
		case n > 0 && list[n-1].to+1 == f.position:
			list[n-1].to++
		default:
			list = append(list, hole{f.position, f.position})
		}
	}
	return list
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// current turns the tree's segments into pieces that do not overlap.
func current(list []foundSegment) (pieces []piece) {
	for i, s := range list {
		next := ^uint64(0)
		if i+1 < len(list) {
			next = list[i+1].first
		}
		last := s.first + uint64(max(s.count, 1)) - 1
		if s.count == 0 && next != ^uint64(0) {
			last = next - 1
		}
		if s.first == 0 || last < s.first || next <= s.first || len(pieces) > 0 && pieces[len(pieces)-1].last >= s.first {
			continue
		}
		pieces = append(pieces, piece{foundSegment: s, last: last, from: s.first, to: last, whole: true})
	}
	return pieces
}

func covered(list []piece, first, last uint64) bool {
	for _, p := range list[after(list, first):] {
		if p.from > first {
			return false
		}
		if p.to >= last {
			return true
		}
		first = p.to + 1
	}
	return false
}

// after finds the first piece that does not end before pos.
func after(list []piece, pos uint64) int {
	i, _ := slices.BinarySearchFunc(list, pos, func(p piece, pos uint64) int { return cmp.Compare(p.to, pos) })
	return i
}

// fill adds those parts of a stretch of p that the list lacks, and keeps the list
// in order.
func (p piece) fill(list []piece, from, last uint64) []piece {
	for from <= last {
		i := after(list, from)
		to := last
		if i < len(list) {
			if list[i].from <= from {
				from = list[i].to + 1
				continue
			}
			to = min(to, list[i].from-1)
		}
		part := p
		part.from, part.to = from, to
		list = slices.Insert(list, i, part)
		from = to + 1
	}
	return list
}

// frameAt is a record in a segment's bytes, at a position that is certain. It may be
// damaged, if its length is good.
type frameAt struct {
	position uint64
	bytes    []byte
	bad      bool
}

// frames are those records of an old segment whose positions are certain: from the
// front up to damage that hides where the next one begins, and from behind that if
// the rest is whole. What stands in between may be another page's by now.
func (w *wreck) frames(s foundSegment) (list []frameAt, h header, err error) {
	b, err := w.read(s)
	if err != nil {
		return nil, h, err
	}
	h, ok := parseHeader(b)
	if !ok || h.first == 0 {
		return nil, h, nil
	}
	var e envelope
	rest, position := b[headerSize:][:h.records], h.first
	for position <= h.last() {
		size := e.take(rest)
		bad := size == 0
		if bad {
			_, _, size = frame(rest)
			if size == 0 || size < len(rest) && e.take(rest[size:]) == 0 {
				break
			}
		}
		list = append(list, frameAt{position, rest[:size], bad})
		rest = rest[size:]
		position++
	}
	left := h.last() + 1 - position
	for off := 1; off < len(rest) && left > 0; off++ {
		if content, _, _ := frame(rest[off:]); content == nil || !e.parse(content) || e.source >= maxID {
			continue
		}
		if n, whole := countRecords(rest[off:]); whole && n > 0 && n <= left {
			rest = rest[off:]
			for position = h.last() - n + 1; position <= h.last(); position++ {
				size := e.take(rest)
				list = append(list, frameAt{position, rest[:size], false})
				rest = rest[size:]
			}
			break
		}
	}
	return list, h, nil
}

// read reads a segment's value; what the file lacks of it is zero.
func (w *wreck) read(s foundSegment) ([]byte, error) {
	b := make([]byte, s.size)
	_, err := w.readAt(b[:min(s.size, max(w.size-s.at, 0))], s.at)
	return b, err
}

// segment reads a piece in the form in which it goes into the fresh file.
func (w *wreck) segment(p *piece) ([]byte, error) {
	if p.whole {
		return w.read(p.foundSegment)
	}
	frames, h, err := w.frames(p.foundSegment)
	if err != nil {
		return nil, err
	}
	g := group{segment: make([]byte, headerSize, p.size), header: header{first: p.from, oldest: h.oldest}}
	for _, f := range frames {
		if f.position >= p.from && f.position <= p.to {
			g.segment = append(g.segment, f.bytes...)
			g.header.count++
		}
	}
	if p.to == h.last() {
		g.marks = w.marks(p.foundSegment, &h)
	}
	g.seal()
	return g.segment, nil
}

// marks are the channel numbers of a segment; nil if they are damaged.
func (w *wreck) marks(s foundSegment, h *header) (list []mark) {
	b, err := w.read(s)
	if err != nil || len(b) < headerSize+int(h.records) {
		return nil
	}
	rest := b[headerSize+h.records:]
	if checksum(rest) != h.marksum || !parseMarks(rest, func(m mark) { list = append(list, m) }) {
		return nil
	}
	return list
}

// holes are the stretches from a position up to end that no piece covers.
func holes(list []piece, from, end uint64) (missing []hole) {
	for _, p := range list {
		if p.from > from {
			missing = append(missing, hole{from, min(p.from-1, end)})
		}
		from = max(from, p.to+1)
		if from > end {
			return missing
		}
	}
	if from <= end {
		missing = append(missing, hole{from, end})
	}
	return missing
}
