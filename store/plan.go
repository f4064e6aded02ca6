package store

import (
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// plan is what one transaction does. It is made under Store.mu, carried out
// without, and its outcome taken over under Store.mu again.
type plan struct {
	group     *group
	cursors   map[string][]byte // new forms of those that changed
	gaps      map[string][]byte // likewise
	forgotten []string
	evicted   []uint32
	free      []segment // delivered to everybody
	victims   []victim  // dropped
	aged      []*loss   // of cursors with a MaxAge
	losses    []*loss   // all of both
	ages      []byte    // new form; nil: as it was
	ageEdits  uint64    // that it has
	byID      []*Source // as of the plan
	fold      []segment
	folded    segment // first is 0 if nothing was folded
	written   int64   // bytes, by bbolt's count of pages
}

// maxFree bounds the segments freed by one commit, for the producers' sake.
const maxFree = 64

func (s *Store) plan(g *group) *plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &plan{
		group: g, byID: s.ids.byID,
		cursors: make(map[string][]byte), gaps: make(map[string][]byte),
		forgotten: s.forgotten, evicted: s.channels.evicted,
	}
	if g.waiting != nil {
		p.evicted = nil // one may be new in the group that waits
	}
	covered := s.covered
	if g.checkpoint != nil {
		covered = g.end()
	}
	if s.ages.step > 0 {
		s.ages.note(s.ages.now(g.end()), s.oldest())
		if s.ages.edits != s.ages.saved || s.ages.moved && s.stopped {
			p.ages, p.ageEdits = s.ages.encode(), s.ages.edits
		}
	}
	p.free = s.free(g, covered)
	if s.planDrop(p, covered); len(p.victims) == 0 {
		if !s.headroom.low { // folding takes room before it makes some
			p.fold = foldable(s.segments[len(p.free):], s.maxGroup, s.maxCount, s.busy)
		}
		s.planAge(p)
	}
	for _, c := range s.active {
		if form := c.encode(g); c.worthSaving(form) {
			p.cursors[c.name] = form
		}
		if c.changed {
			p.gaps[c.name] = encodeMissing(c.missing)
			c.changed = false // what an Ack changes from here on is for the next plan
		}
	}
	s.ackedSince = time.Time{}
	return p
}

// undone notes that a plan was not carried out.
func (s *Store) undone(p *plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range p.gaps {
		s.cursors[name].changed = true
	}
}

// apply carries the plan out in one transaction of db. The transaction's id is
// returned with an error, too.
func (s *Store) apply(db *bolt.DB, p *plan) (txid int, err error) {
	tx, err := begin(db, true)
	if err != nil {
		return 0, err
	}
	defer rollback(tx, &err)
	txid = tx.ID()
	tx.Cursor().Bucket().FillPercent = 1 // of the top level, whose names rise
	s.bound(tx, p)
	for _, step := range []func(*bolt.Tx) error{p.putNames, p.lose, p.foldSegments, p.freeSegments, p.putCursors, p.putAges, p.putMail, p.putGroup} {
		if err := step(tx); err != nil {
			return txid, err
		}
	}
	if err := s.disk.commit(tx); err != nil {
		return txid, explainRoom(err)
	}
	s.txid = uint64(txid)
	stats := tx.Stats()
	p.written = stats.GetPageAlloc() + int64(db.Info().PageSize)
	s.headroom.size += stats.GetPageAlloc()
	return txid, nil
}

// rollback ends a transaction in which bbolt may have panicked over a damaged
// page. It has no effect on one that was committed.
func rollback(tx *bolt.Tx, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %v", errFault, r)
	}
	defer func() { _ = recover() }() // the same page again
	_ = tx.Rollback()
}

// putNames stores what had its first record in this group.
func (p *plan) putNames(tx *bolt.Tx) error {
	if len(p.group.sources) > 0 {
		b := tx.Bucket([]byte(sourceBucket))
		b.FillPercent = 1 // ids rise
		for _, source := range p.group.sources {
			if err := putSummed(b, sourceBucket, idKey(source.id), encodeSource(source.key)); err != nil {
				return err
			}
		}
	}
	if len(p.group.fresh)+len(p.evicted) == 0 {
		return nil
	}
	b := tx.Bucket([]byte(channelBucket))
	for _, c := range p.group.fresh {
		if err := putSummed(b, channelBucket, idKey(c.id), encodeChannel(c.key)); err != nil {
			return err
		}
	}
	for _, id := range p.evicted {
		if err := b.Delete(idKey(id)); err != nil {
			return err
		}
	}
	return nil
}

// foldSegments puts one segment in the place of several.
func (p *plan) foldSegments(tx *bolt.Tx) error {
	p.folded = segment{}
	if len(p.fold) == 0 {
		return nil
	}
	h, value := fold(tx, p.fold)
	if value == nil {
		return nil // damaged: left as it is
	}
	p.folded = segment{first: h.first, last: h.last(), bytes: int64(len(value)), oldest: h.oldest}
	if err := deleteSegments(tx, p.fold); err != nil {
		return err
	}
	return putSegment(tx, h.first, value)
}

func (p *plan) freeSegments(tx *bolt.Tx) error {
	for i := range p.victims {
		if err := deleteSegments(tx, []segment{p.victims[i].segment}); err != nil {
			return err
		}
	}
	return deleteSegments(tx, p.free)
}

func deleteSegments(tx *bolt.Tx, list []segment) error {
	for _, seg := range list {
		if err := tx.DeleteBucket(segmentName(seg.first)); err != nil {
			return fmt.Errorf("freeing the records from position %d: %w", seg.first, err)
		}
	}
	return nil
}

func (p *plan) putCursors(tx *bolt.Tx) error {
	// Forgotten names go first: one may have come back.
	for _, bucket := range []string{cursorBucket, gapBucket} {
		for _, name := range p.forgotten {
			if err := tx.Bucket([]byte(bucket)).Delete([]byte(name)); err != nil {
				return err
			}
		}
	}
	if err := putAll(tx, cursorBucket, p.cursors); err != nil {
		return err
	}
	return putAll(tx, gapBucket, p.gaps)
}

func putAll(tx *bolt.Tx, bucket string, values map[string][]byte) error {
	if len(values) == 0 {
		return nil
	}
	b := tx.Bucket([]byte(bucket))
	for name, value := range values {
		if err := putSummed(b, bucket, []byte(name), value); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) putGroup(tx *bolt.Tx) error {
	for part := range p.group.segments() {
		if err := putSegment(tx, part.header.first, part.value); err != nil {
			return err
		}
	}
	if p.group.checkpoint == nil {
		return nil
	}
	return tx.Bucket([]byte(checkpointBucket)).Put([]byte(checkpointKey), p.group.checkpoint)
}

// publish takes over what is on disk now.
func (s *Store) publish(p *plan, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := p.group
	if g.waiting == nil {
		s.recovered()
	}
	s.publishSegments(p)
	for i, c := range g.channels {
		c.safe.Store(g.marks[i].last)
	}
	for name, form := range p.cursors {
		s.cursors[name].saved = form
	}
	s.forgotten = s.forgotten[len(p.forgotten):]
	s.channels.evicted = s.channels.evicted[len(p.evicted):]
	s.publishLosses(p)
	if len(p.fold) > 0 && p.folded.first == 0 {
		s.keepApart(p.fold)
	}
	s.share(g)
	s.stats.committed(p, took)
	s.measureFile()
	if run := s.compact.run; run != nil {
		run.stall = max(run.stall, took)
	}
	if p.ages != nil {
		s.ages.saved, s.ages.moved = p.ageEdits, false
	}
	if len(p.free) == maxFree || len(p.aged) > 0 {
		s.ackedSince = time.Now() // there is more to free
	}
	s.measureRoom()
	s.announceRoom()
	if g.waiting != nil {
		return
	}
	s.writing, s.wanted = amount{}, amount{}
	s.spare = reusable(g, s.maxGroup)
}

// spare is memory of a group that is on disk.
type spare struct {
	segment []byte
	tallies []tally
}

func reusable(g *group, limit int64) spare {
	if int64(cap(g.segment)) > 4*limit {
		return spare{}
	}
	return spare{segment: g.segment, tallies: g.tallies}
}

func (s *Store) publishSegments(p *plan) {
	if p.folded.first != 0 || len(p.victims) > 0 {
		s.replaceSegments(p)
	}
	for i := range p.free {
		s.remove(&p.free[i])
	}
	s.segments = s.segments[len(p.free):]
	g := p.group
	for part := range g.segments() {
		size, h := int64(len(part.value)), &part.header
		s.segments = append(s.segments, segment{first: h.first, last: h.last(), bytes: size, oldest: h.oldest})
		s.live += size
		s.uncovered += size
	}
	if g.header.count > 0 {
		s.total += int64(g.header.count)
		s.end = g.end()
	}
	if g.checkpoint != nil {
		s.covered, s.uncovered = g.end(), 0
	}
}

func (s *Store) remove(seg *segment) {
	s.live -= seg.bytes
	s.total -= seg.records()
}

// replaceSegments takes dropped and folded segments out of the list.
func (s *Store) replaceSegments(p *plan) {
	gone := make(map[uint64]bool, len(p.victims)+len(p.fold))
	for i := range p.victims {
		gone[p.victims[i].segment.first] = true
		s.remove(&p.victims[i].segment)
	}
	if p.folded.first != 0 {
		for _, seg := range p.fold {
			gone[seg.first] = true
			s.remove(&seg)
		}
		s.live += p.folded.bytes
		s.total += p.folded.records()
	}
	kept := make([]segment, 0, len(s.segments))
	for _, seg := range s.segments {
		if !gone[seg.first] {
			kept = append(kept, seg)
		} else if seg.first == p.folded.first {
			kept = append(kept, p.folded)
		}
	}
	s.segments = kept
}

// share gives each cursor its part of the group.
func (s *Store) share(g *group) {
	for i := range g.tallies {
		t := &g.tallies[i]
		wanted := false
		for _, c := range s.active {
			if c.takes[t.source.id] {
				c.unread.add(t.records, t.bytes)
				wanted = true
			}
		}
		if !wanted {
			s.stats.unwanted += t.records
		}
	}
	for _, c := range s.active {
		c.skipUnwanted(s.end)
		if c.unread.records > 0 || len(c.missing) > 0 {
			c.wake()
		}
	}
}
