package store

import (
	"encoding/binary"
	"math"
)

// A checkpoint is a table of the last number of each of our devices and of each
// channel, valid up to a position. Its form:
//
//	CRC-32C of the rest u32, position u64,
//	number of devices uvarint, and for each: id, last number (uvarint)
//	the same for channels
//
// Writing one costs its size, not writing it makes the next start read more. So
// one is due when there are checkpointRatio times its size of records that it
// does not cover: then it adds 3 % to what is written. A queue of few devices,
// whose table is small, has one in nearly every commit, and can free what was
// delivered at once.
const (
	checkpointRatio = 32
	maxUncovered    = 8 << 20 // bytes of records that a start may have to read
	bytesPerNumber  = 8       // in the table, about
)

// checkpointDue tells whether the group about to be committed should bring one.
func (s *Store) checkpointDue(more int64) bool {
	table := int64(bytesPerNumber * (len(s.ids.own) + len(s.channels.byKey) + 4))
	return s.uncovered+more >= min(checkpointRatio*table, maxUncovered)
}

// coverNow tells whether the group should bring one so that segments may go. With
// keep the file is nearly full most of the time, and what goes is long covered.
func (s *Store) coverNow(g *group) bool {
	if !s.shortage(g.amount()).some() {
		return false
	}
	return s.cfg.Keep == 0 || len(s.segments) == 0 || s.segments[0].last > s.covered
}

// encodeCheckpoint is the table up to a position. unwritten are the numbers up to there
// of devices that have had more since; nil: there are none, of channels neither.
func (s *Store) encodeCheckpoint(position uint64, unwritten map[*device]uint64) []byte {
	b := make([]byte, 4, 4+8+bytesPerNumber*(len(s.ids.own)+len(s.channels.byKey)+2))
	b = binary.LittleEndian.AppendUint64(b, position)
	b = binary.AppendUvarint(b, uint64(len(s.ids.own)))
	for _, d := range s.ids.own {
		b = binary.AppendUvarint(b, uint64(d.id))
		last, ahead := unwritten[d]
		if !ahead {
			last = d.last
		}
		b = binary.AppendUvarint(b, last)
	}
	n := uint64(0)
	for _, c := range s.channels.byKey {
		if c.id != 0 {
			n++
		}
	}
	b = binary.AppendUvarint(b, n)
	for _, c := range s.channels.byKey {
		if c.id != 0 {
			last := c.last
			if unwritten != nil {
				last = c.safe.Load()
			}
			b = binary.AppendUvarint(b, uint64(c.id))
			b = binary.AppendUvarint(b, last)
		}
	}
	binary.LittleEndian.PutUint32(b, checksum(b[4:]))
	return b
}

// decodeCheckpoint calls device and channel for each number of the table.
func decodeCheckpoint(b []byte, device, channel func(id uint32, last uint64)) (position uint64, ok bool) {
	if len(b) < 12 || binary.LittleEndian.Uint32(b) != checksum(b[4:]) {
		return 0, false
	}
	position, b = binary.LittleEndian.Uint64(b[4:]), b[12:]
	for _, each := range []func(uint32, uint64){device, channel} {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return 0, false
		}
		b = b[size:]
		for range n {
			id, size := binary.Uvarint(b)
			if size <= 0 || id > math.MaxUint32 {
				return 0, false
			}
			last, more := binary.Uvarint(b[size:])
			if more <= 0 {
				return 0, false
			}
			each(uint32(id), last)
			b = b[size+more:]
		}
	}
	return position, len(b) == 0
}
