package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"path/filepath"
	"syscall"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/mcp-edge/edge-agent/record"
)

// ErrNoQueue is returned for a directory without a queue.
var ErrNoQueue = errors.New("there is no queue here")

// Image is the queue of an agent that does not run, opened to be looked at. Not a
// byte of the directory is changed, so it may also be on a file system that is full
// or read-only. While an Image is open no agent can start on it. Its methods may be
// called concurrently, but not with Close.
type Image struct{ store *Store }

// OpenImage opens the queue in dir for reading. It waits for nobody: it fails with
// ErrLocked if a process has the queue, with ErrNoQueue, or as Open does for a file
// that can't be used.
func OpenImage(dir string) (*Image, error) {
	s := &Store{
		path: filepath.Join(dir, FileName), log: slog.New(slog.DiscardHandler),
		ids: newIdentities(), channels: newChannels(), cursors: make(map[string]*Cursor),
		pending: newGroup(spare{}),
	}
	var err error
	if s.dir, err = lockDir(dir, syscall.LOCK_SH, 0); err == nil {
		if err = s.openImage(); err == nil {
			return &Image{s}, nil
		}
		s.dir.Close()
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNoQueue
	}
	return nil, fmt.Errorf("store: %s: %w", s.path, err)
}

// Lock keeps agents out of a directory until it is closed, whatever is in there. It
// waits for nobody: it fails with ErrLocked if a process has the queue.
func Lock(dir string) (io.Closer, error) {
	f, err := lockDir(dir, syscall.LOCK_EX, 0)
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", dir, err)
	}
	return f, nil
}

func (s *Store) openImage() error {
	if err := s.examine(); err != nil {
		return err
	}
	var err error
	s.db, err = bolt.Open(s.path, 0, &bolt.Options{ReadOnly: true, Timeout: shortly})
	if errors.Is(err, berrors.ErrTimeout) {
		return ErrLocked
	}
	if err != nil {
		return err
	}
	if err := s.load(); err != nil {
		_ = s.db.Close()
		return err
	}
	return nil
}

// shortly is the shortest time-out of bbolt that is one.
const shortly = 1

// Close lets go of the directory.
func (i *Image) Close() error { return errors.Join(i.store.db.Close(), i.store.dir.Close()) }

// Path of the file.
func (i *Image) Path() string { return i.store.path }

// Epoch names the data directory.
func (i *Image) Epoch() record.Epoch { return i.store.Epoch() }

// Stats is as a Store's. Counters are 0, MaxBytes is not known, and all cursors are
// Held: which of them a configuration uses is not in the file. Lag is what the
// cursor had to deliver when its place was last written, and all that has come since.
func (i *Image) Stats() Stats {
	st := i.store.Stats()
	for k := range st.Cursors {
		c := i.store.cursors[st.Cursors[k].Name]
		if len(c.saved) == savedSize {
			le := binary.LittleEndian
			since := i.store.end - min(le.Uint64(c.saved[8:]), i.store.end)
			st.Cursors[k].Lag = min(le.Uint64(c.saved[16:])+since, i.store.end-c.acked)
			if since == 0 {
				st.Cursors[k].LagBytes = le.Uint64(c.saved[24:])
			}
		}
		if st.Cursors[k].Lag == 0 {
			st.Cursors[k].LagBytes = 0
		}
	}
	return st
}

// Browse is as a Store's.
func (i *Image) Browse(ctx context.Context, q Query) iter.Seq2[Item, error] {
	return i.store.Browse(ctx, q)
}

// Range is as a Store's.
func (i *Image) Range() (oldest, newest uint64) { return i.store.Range() }

// Count is as a Store's.
func (i *Image) Count(ctx context.Context, from uint64, bytes int) (Tally, error) {
	return i.store.Count(ctx, from, bytes)
}
