package store

import (
	"slices"

	bolt "go.etcd.io/bbolt"
)

// A trickle leaves a small segment with each commit. Many of them cost a start
// time, and the directory of segments pages. So runs of small ones at the end of
// the log are folded: tiny ones as soon as there are foldCount, others when they
// make a full-size segment together, but while producers are busy only when there
// are very many. A byte is written again twice at most.
const (
	tinySegment = 4 << 10
	foldCount   = 64
	maxSmall    = 2048
)

// foldable finds a run to fold, if there is one. full is a segment's full size, and
// most the records that it may have.
func foldable(list []segment, full, most int64, busy bool) []segment {
	tiny, small := len(list), len(list)
	total := int64(0)
	for i := len(list) - 1; i >= 0 && list[i].bytes < full/4 && !list[i].apart; i-- {
		if i+1 < len(list) && list[i].last+1 != list[i+1].first {
			break
		}
		if list[i].bytes < tinySegment && tiny == i+1 {
			tiny = i
		}
		small = i
		total += list[i].bytes
	}
	switch {
	case total >= full && !busy, len(list)-small >= maxSmall:
		return upTo(list[small:], full, most)
	case len(list)-tiny >= foldCount:
		return upTo(list[tiny:], full, most)
	}
	return nil
}

// upTo returns as many segments as make a full one, from the first pair on that does
// not have too many records.
func upTo(list []segment, full, most int64) []segment {
	for ; len(list) > 1 && list[0].records()+list[1].records() > most; list = list[1:] {
	}
	if len(list) < 2 {
		return nil
	}
	bytes, records := int64(0), int64(0)
	for i := range list {
		if records += list[i].records(); records > most {
			return slices.Clone(list[:i])
		}
		if bytes += list[i].bytes; bytes >= full {
			return slices.Clone(list[:i+1])
		}
	}
	return slices.Clone(list)
}

// fold makes one segment of several. value is nil if one of them is damaged: then
// they stay apart, so that the damage is not spread.
func fold(tx *bolt.Tx, list []segment) (h header, value []byte) {
	size := int64(0)
	for _, seg := range list {
		size += seg.bytes
	}
	value = make([]byte, headerSize, size) // with the headers and marks of all, of which fewer are left
	marks := make(map[uint32]uint64)
	h = header{first: list[0].first, oldest: noTime}
	for _, seg := range list {
		at := findSegment(tx, seg.first)
		part := at.value()
		ph, ok := parseHeader(part)
		if !ok || ph.first != seg.first || ph.last() != seg.last {
			return h, nil
		}
		records, rest := part[headerSize:][:ph.records], part[headerSize+ph.records:]
		if checksum(rest) != ph.marksum || !parseMarks(rest, func(m mark) { marks[m.channel] = m.last }) {
			return h, nil
		}
		value = append(value, records...)
		h.count += ph.count
		if h.oldest == noTime || ph.oldest != noTime && ph.oldest < h.oldest {
			h.oldest = ph.oldest
		}
	}
	h.records = uint32(len(value) - headerSize)
	for channel, last := range marks {
		value = appendMarks(value, []mark{{channel, last}})
	}
	h.marks = uint32(len(value) - headerSize - int(h.records))
	h.marksum = checksum(value[headerSize+h.records:])
	h.put(value)
	return h, value
}

// keepApart notes that segments can't be folded.
func (s *Store) keepApart(list []segment) {
	for i := range s.segments {
		for _, seg := range list {
			if s.segments[i].first == seg.first {
				s.segments[i].apart = true
			}
		}
	}
}
