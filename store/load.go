package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// forEach goes through a bucket whose values have sums.
func (s *Store) forEach(tx *bolt.Tx, bucket string, each func(k, v []byte) error) error {
	return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
		value, ok := unsum(bucket, k, v, !s.about.sums)
		if !ok {
			return fmt.Errorf("%w: the checksum of %q in %s is wrong", ErrDamaged, k, bucket)
		}
		return each(k, value)
	})
}

func (s *Store) loadNames(tx *bolt.Tx) error {
	err := s.forEach(tx, sourceBucket, func(k, v []byte) error {
		key, ok := decodeSource(v)
		if !ok || len(k) != 4 || binary.BigEndian.Uint32(k) != uint32(len(s.ids.byID)) {
			return fmt.Errorf("%w: the name of source %x can't be read", ErrDamaged, k)
		}
		s.ids.number(s.ids.add(key))
		return nil
	})
	if err != nil {
		return err
	}
	return s.forEach(tx, channelBucket, func(k, v []byte) error {
		key, ok := decodeChannel(v)
		if !ok || len(k) != 4 {
			return fmt.Errorf("%w: the name of channel %x can't be read", ErrDamaged, k)
		}
		c, err := s.channels.add(key)
		if err != nil {
			return fmt.Errorf("%w: channel %x: %w", ErrDamaged, k, err)
		}
		c.id = binary.BigEndian.Uint32(k)
		s.channels.lastID = max(s.channels.lastID, c.id)
		return nil
	})
}

// loadCheckpoint sets all numbers as of the checkpoint.
func (s *Store) loadCheckpoint(tx *bolt.Tx) error {
	byID := s.channels.index()
	position, ok := decodeCheckpoint(tx.Bucket([]byte(checkpointBucket)).Get([]byte(checkpointKey)),
		func(id uint32, last uint64) {
			if int(id) < len(s.ids.byID) && id != 0 {
				s.ids.byID[id].device.last = last
			}
		},
		func(id uint32, last uint64) {
			if c := byID[id]; c != nil {
				c.last = last
				c.safe.Store(last)
			}
		})
	if !ok {
		return fmt.Errorf("%w: the table of record numbers can't be read", ErrDamaged)
	}
	s.covered, s.end = position, position
	return nil
}

func (cs *channels) index() map[uint32]*Channel {
	byID := make(map[uint32]*Channel, len(cs.byKey))
	for _, c := range cs.byKey {
		byID[c.id] = c
	}
	return byID
}

// loadSegments lists the segments, and carries the numbers on with those behind
// the checkpoint.
func (s *Store) loadSegments(tx *bolt.Tx) error {
	byID := s.channels.index()
	for at := findSegment(tx, 0); at.found(); at.next() {
		value := at.value()
		h, ok := parseHeader(value)
		if value == nil || ok && h.first != at.first() {
			return fmt.Errorf("%w: the records at position %d are not where they belong", ErrDamaged, at.first())
		}
		seg := segment{first: at.first(), bytes: int64(len(value)), oldest: h.oldest, apart: !ok}
		w := at.walk(uint32(len(s.ids.byID)))
		seg.last = w.last
		if n := len(s.segments); seg.last < seg.first || n > 0 && s.segments[n-1].last >= seg.first {
			return fmt.Errorf("%w: the records from position %d on overlap others", ErrDamaged, seg.first)
		}
		if !ok {
			s.log.Error("a segment of the queue is damaged: what is readable of it will be delivered", "file", s.path, "position", seg.first)
		}
		s.segments = append(s.segments, seg)
		s.live += seg.bytes
		s.total += seg.records()
		s.end = max(s.end, seg.last)
		if seg.last <= s.covered {
			continue
		}
		s.uncovered += seg.bytes
		s.carryOn(&w)
		if ok {
			s.carryOnMarks(value[headerSize+h.records:], h.marksum, byID)
		}
	}
	return nil
}

// carryOn raises the devices' numbers by a segment's records.
func (s *Store) carryOn(w *walker) {
	var e envelope
	for {
		what, lost := w.next(&e)
		switch what {
		case stepEnd:
			return
		case stepDamaged:
			s.log.Error("records in the queue can't be read", "file", s.path, "position", w.pos, "records", lost)
			// Its number must not be given again, if it looks like the next one.
			if e.source == 0 || e.seq != s.ids.byID[e.source].device.last+1 {
				continue
			}
		case stepRecord:
		}
		if int(e.source) >= len(s.ids.byID) || e.source == 0 || e.gap {
			continue
		}
		if source := s.ids.byID[e.source]; source.key.Agent == "" {
			source.device.last = max(source.device.last, e.seq)
		}
	}
}

func (s *Store) carryOnMarks(b []byte, sum uint32, byID map[uint32]*Channel) {
	ok := checksum(b) == sum && parseMarks(b, func(m mark) {
		if c := byID[m.channel]; c != nil {
			c.last = m.last
			c.safe.Store(m.last)
		}
	})
	if !ok {
		s.log.Error("channel numbers in the queue can't be read: their senders may repeat records, which are then stored twice", "file", s.path)
	}
}

// loadCursors takes up all cursors as held, until they are opened.
func (s *Store) loadCursors(tx *bolt.Tx) error {
	gaps := make(map[string][]byte)
	err := s.forEach(tx, gapBucket, func(k, v []byte) error {
		gaps[string(k)] = v
		return nil
	})
	if err != nil {
		return err
	}
	return s.forEach(tx, cursorBucket, func(k, v []byte) error {
		c := &Cursor{store: s, name: string(k), held: true, saved: slices.Clone(v)}
		if len(v) != savedSize {
			return fmt.Errorf("%w: the place of cursor %s can't be read", ErrDamaged, k)
		}
		c.acked = min(binary.LittleEndian.Uint64(v), s.end)
		var ok bool
		if c.missing, ok = decodeMissing(gaps[c.name], uint32(len(s.ids.byID))); !ok {
			return fmt.Errorf("%w: the gaps of cursor %s can't be read", ErrDamaged, k)
		}
		s.cursors[c.name] = c
		return nil
	})
}
