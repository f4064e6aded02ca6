package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// What bbolt's Commit has done when it fails, by the step that failed:
//
//	allocating      nothing
//	growing         nothing, or the file is longer
//	writing pages   free pages have changed; the last good state is untouched
//	syncing them    the same, but the kernel may have dropped what it could not
//	                write and call the pages clean: reading them back proves nothing
//	writing meta    the new state may or may not be the current one, in memory
//	syncing meta    it is the current one in memory, and perhaps not on disk
//
// bbolt rolls back, and after the last two goes on from the state whose commit it
// has just called a failure. So only a failed write is tried again in place. After
// anything else, that state is revoked, and all that was good before is copied to
// a fresh file, which takes the place of the old one once it is on disk with the
// batch that failed. Until then, nothing is acknowledged, and cursors go on
// reading the old file.

// rescue is what the writer knows of a file that can't be trusted.
type rescue struct {
	needed bool
	revoke int // id of a transaction that must not count; 0: none any more
}

// transact carries the plan out, in the file as it is or in a fresh one.
func (s *Store) transact(p *plan) error {
	if !s.suspect.needed {
		if moved, err := s.move(p); moved {
			return err
		}
		txid, err := s.apply(s.db, p)
		if err == nil || errors.Is(err, errNoRoom) || onlyWriteFailed(err) && !s.isCurrent(txid) {
			return err
		}
		s.log.Error("after this error the queue file can't be trusted, so it is written anew", "file", s.path, "error", err)
		s.suspect = rescue{needed: true, revoke: txid}
		s.stopCompaction(errors.New("the queue file can't be trusted"))
	}
	if s.suspect.revoke != 0 {
		if err := s.revoke(s.suspect.revoke); err != nil {
			return fmt.Errorf("taking back a failed commit: %w", err)
		}
		s.suspect.revoke = 0
	}
	if err := s.rewrite(p); err != nil {
		return fmt.Errorf("writing the queue file anew: %w", err)
	}
	s.suspect = rescue{}
	s.mu.Lock()
	s.stats.rescues++
	s.mu.Unlock()
	return nil
}

// onlyWriteFailed: os.File wraps the error of a write, and bbolt returns that of
// fdatasync bare.
func onlyWriteFailed(err error) bool {
	var failed *fs.PathError
	return errors.As(err, &failed) && failed.Op == "write"
}

// isCurrent tells whether a transaction's meta page is valid in the file. Not to
// be able to tell is as bad.
func (s *Store) isCurrent(txid int) bool {
	f, err := os.Open(s.path)
	if err != nil {
		return true
	}
	defer f.Close()
	m, err := readMeta(f, int64(txid%2)*s.pageSize())
	return err == nil && m.txid == uint64(txid)
}

func (s *Store) pageSize() int64 { return int64(s.db.Info().PageSize) }

// revoke makes the meta page of a transaction invalid, so that the one of the
// commit before counts.
func (s *Store) revoke(txid int) error {
	if !s.isCurrent(txid) {
		return nil
	}
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	page := s.pageSize()
	_, err = f.WriteAt(make([]byte, page), int64(txid%2)*page)
	return err
}

// rewrite copies the file, carries the plan out in the copy, and puts that in the
// file's place.
func (s *Store) rewrite(p *plan) error {
	t, err := newTransfer(s, s.size())
	if err != nil {
		return err
	}
	err = t.whole()
	if err == nil {
		_, err = s.adopt(t, p, verifyOnDisk)
	}
	if err != nil {
		t.discard()
		return err
	}
	t.release() // however that ends, the fresh file is good
	return nil
}
