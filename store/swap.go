package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"unsafe"

	bolt "go.etcd.io/bbolt"
)

// The file is replaced by a fresh one while it is in use: to give space back
// (compact.go), and after an error that it can't be trusted after (rescue.go).

// view runs fn in a read transaction. When the file is replaced meanwhile, fn goes on
// in the one before, which is closed only then.
func (s *Store) view(fn func(*bolt.Tx) error) error {
	s.swap.RLock()
	tx, err := begin(s.db, false)
	s.swap.RUnlock()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	return fn(tx)
}

// begin starts a transaction. bbolt reads its two meta pages in the map while it holds
// locks that a fault would leave locked for ever. So they are touched before: what
// can't be read is an error then. It holds no promise against a disk that fails in
// the moment between.
func begin(db *bolt.DB, writable bool) (tx *bolt.Tx, err error) {
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	info := db.Info()
	pages := *(*unsafe.Pointer)(unsafe.Pointer(&info.Data))
	atomic.LoadUint32((*uint32)(pages)) // which the compiler does not leave out
	atomic.LoadUint32((*uint32)(unsafe.Add(pages, info.PageSize)))
	return db.Begin(writable)
}

// openFresh makes the file that is to replace the queue's. What it will hold takes
// need bytes.
func (s *Store) openFresh(need int64) (*bolt.DB, error) {
	fresh := s.path + freshSuffix
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	db, err := openBolt(fresh, mapSize(s.cfg.MaxSize))
	if errors.Is(err, syscall.ENOMEM) {
		// A 32-bit process may not have the addresses for two maps of full size.
		// A smaller one is mapped anew when the file outgrows it.
		db, err = openBolt(fresh, int(need+need/8+4<<20))
	}
	if err != nil {
		return nil, err
	}
	db.NoSync, db.NoGrowSync = true, true // until it has everything
	return db, nil
}

// adopt carries the plan out in the fresh file, which has everything else, and puts it
// in the place of the queue's. verify, unless nil, has the last word on what is on disk.
// After an error the file before is in use still; renamed tells that nobody knows then
// which of the two a power cut would leave.
func (s *Store) adopt(t *transfer, p *plan, verify func(path string) error) (renamed bool, err error) {
	if err := t.complete(); err != nil {
		return false, err
	}
	if err := t.db.Update(s.nextGeneration); err != nil {
		return false, err
	}
	// The sync is not left to the commit: when that fails, bbolt goes through a tree
	// that may be garbage now, in a goroutine of its own, which crashes the process.
	if _, err := s.apply(t.db, p); err != nil {
		return false, err
	}
	if err := t.db.Sync(); err != nil {
		return false, err
	}
	t.db.NoSync, t.db.NoGrowSync = false, false
	fresh := s.path + freshSuffix
	if verify != nil {
		if err := verify(fresh); err != nil {
			return false, err
		}
	}
	if err := os.Rename(fresh, s.path); err != nil {
		return false, err
	}
	if err := s.disk.sync(filepath.Dir(s.path)); err != nil {
		return true, err
	}
	s.swap.Lock()
	t.old, s.db = s.db, t.db
	s.swap.Unlock()
	s.replaced()
	s.headroom.backed = 0
	return true, nil
}

// syncDir makes a directory's entries durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
