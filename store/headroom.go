package store

import (
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// A full disk, and what goes on then. When the disk has less free than min_free, or
// none at all, the file does not grow any more: records go where pages are free
// inside of it, and when those are used up they wait, or the oldest go, as at
// max_size. What needs little goes on: the places of cursors, what they free, and the
// mailbox. That makes room inside the file again. For it, some pages stay free inside
// the file, and behind its end blocks of the disk are taken in advance that only such
// commits may use; so it works when others have filled the disk to the last byte.
//
// A commit whose records find no room nevertheless is not given up: what needs little is
// committed without them (norecords.go).
const (
	lookEvery  = time.Second // at the disk, while records come or wait
	lookBytes  = 1 << 20     // written since the last look
	maxReserve = 1 << 20     // bytes, and twice the checkpoint's
	minReserve = 128 << 10
	backStep   = 1 << 20   // of the file that is taken in advance at a time
	overhead   = 256 << 10 // pages of a commit besides its records
)

var errNoRoom = errors.New("the queue file may not grow, and has no room inside for these records")

// headroom is what the writer knows of the disk.
type headroom struct {
	looked  time.Time
	written int64 // bytes, since then
	backed  int64 // up to here the file has blocks of the disk
	size    int64 // of the file by its pages, at most
	never   bool  // the file system does not give blocks in advance

	// Guarded by Store.mu.
	low     bool
	full    bool  // low because a write found no room, not for MinFree
	free    int64 // of the disk, when it was looked at last
	ceiling int64 // while low: the most bytes of records that the file has room for
}

// minFree is what the disk should have free at least.
func (s *Store) minFree(total int64) int64 { return min(s.cfg.MinFree, total/4) }

// look finds out whether the disk is full, if records come or wait and it is time.
// Only the writer calls it.
func (s *Store) look() {
	h := &s.headroom
	s.mu.Lock()
	needed := s.pending.header.count > 0 || s.writing.some() || s.waiting()
	s.mu.Unlock()
	if !needed || time.Since(h.looked) < lookEvery && h.written < lookBytes {
		return
	}
	h.looked, h.written = time.Now(), 0
	free, total, err := diskFree(s.path)
	if err != nil {
		return // what can't be asked does not limit
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h.free = free
	least := s.minFree(total)
	switch {
	case !h.low && free < least:
		s.becomeLow(false)
	case h.low && free >= least+max(least/8, s.reserve()+2*backStep):
		h.low, h.full = false, false
		s.wanted = amount{}
		s.announceRoom()
		s.log.Info("the disk has room again", "file", s.path, "free", free)
	}
}

// waiting tells whether records wait for room.
func (s *Store) waiting() bool { return s.wanted.some() || s.roomWaiters > 0 }

// lookWait is how long until the disk is to be looked at again.
func (s *Store) lookWait() time.Duration {
	if s.headroom.low && s.waiting() {
		return max(time.Until(s.headroom.looked.Add(lookEvery)), time.Millisecond)
	}
	return time.Hour
}

// becomeLow notes that the file may not grow.
func (s *Store) becomeLow(full bool) {
	h := &s.headroom
	before := h.low
	h.low, h.full = true, h.full || full
	s.measureRoom()
	if !before {
		s.log.Warn("the disk is nearly full: the queue file does not grow any more; acknowledgements and commands go on",
			"file", s.path, "why", s.whyLow(), "room_inside", h.ceiling-s.live)
	}
}

// measureRoom finds out, after a commit, how many bytes of records the file has room
// for as it is. It is a guess: what does not fit after all waits in the writer.
func (s *Store) measureRoom() {
	h := &s.headroom
	if !h.low {
		return
	}
	inside := s.compact.stats.Free + max(0, h.backed-h.size)
	h.ceiling = s.live + max(0, inside-min(s.reserve()+2*overhead, (s.live+inside)/4))
}

// limit is the most bytes of records that there may be now.
func (s *Store) limit() int64 {
	if s.headroom.low {
		return min(s.cfg.MaxSize, s.headroom.ceiling)
	}
	return s.cfg.MaxSize
}

// reserve is how many bytes records leave to what needs little.
func (s *Store) reserve() int64 {
	table := int64(bytesPerNumber * (len(s.ids.own) + len(s.channels.byKey)))
	return min(max(s.cfg.MaxSize/16, minReserve), maxReserve) + 2*table
}

func (s *Store) whyLow() string {
	h := &s.headroom
	if h.full {
		return "the disk is full"
	}
	return fmt.Sprintf("the disk has %d MiB free, and min_free is %d MiB", h.free>>20, s.cfg.MinFree>>20)
}

// bound says before a transaction whether the file may grow by it.
func (s *Store) bound(tx *bolt.Tx, p *plan) {
	db := tx.DB()
	db.MaxSize = 0 // no bound
	if db != s.db {
		return
	}
	s.headroom.size = tx.Size()
	if p.group.header.count == 0 {
		return
	}
	s.mu.Lock()
	low, reserve := s.headroom.low, s.reserve()
	s.mu.Unlock()
	h := &s.headroom
	need := int64(len(p.group.segment)) + bytesOf(p.fold) + overhead
	h.written += need
	if !low {
		// The group behind this one, and what is appended until a full disk is known,
		// have been taken then.
		low = !s.back(h.size + need + reserve + 2*(s.maxGroup+overhead))
	}
	if low && h.size+need+reserve > h.backed {
		db.MaxSize = 1 // any growth is beyond it
	}
}

// back takes blocks of the disk for the file up to a size, at least. It reports false,
// and notes that, if the disk has none.
func (s *Store) back(size int64) bool {
	h := &s.headroom
	if size <= h.backed || h.never {
		return true
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if err != nil {
		return true // the commit will say what is wrong
	}
	defer f.Close()
	size += backStep
	switch err := takeBlocks(f, h.backed, size); {
	case isDiskFull(err):
		s.mu.Lock()
		s.becomeLow(true)
		s.mu.Unlock()
		return false
	case err != nil:
		h.never = true
	default:
		h.backed = size
	}
	return true
}

// explainRoom tells a transaction that needed more than it may have from others.
func explainRoom(err error) error {
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		return errNoRoom
	}
	return err
}
