package store

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mcp-edge/edge-agent/record"
)

// Store is a queue in one file. All its methods may be called concurrently.
type Store struct {
	path string
	cfg  Config
	log  *slog.Logger
	disk disk
	dir  *os.File // locked, so that no other process has the queue

	// Owned by the writer.
	suspect  rescue
	busy     bool     // commits follow on one another
	headroom headroom // but for what mu guards
	witness  witness
	txid     uint64 // of the last commit

	maxGroup int64 // bytes of records that are taken into one commit
	maxCount int64 // records that are

	// The file. swap is held to read by whoever uses db, and to write by the writer
	// when it puts another file in its place.
	swap sync.RWMutex
	db   *bolt.DB

	kick    chan struct{} // holds one token when the writer should look again
	ran     chan struct{} // closed when Run has returned
	nothing *Commit       // done

	about   about    // changed by Open, and by the writer its generation
	notices []string // what happened at Open that somebody should know
	aside   []AsideFile

	mu       sync.Mutex
	ids      identities
	channels channels
	cursors  map[string]*Cursor // opened and held
	mail     mail
	active   []*Cursor // opened
	segments []segment // in the file, in order
	live     int64     // bytes of segments
	total    int64     // records of segments
	ages     ages
	end      uint64 // position of the last record on disk
	covered  uint64 // position of the checkpoint in the file

	pending   *group
	writing   amount // the group being committed
	spare     spare  // for the next group
	scratch   []byte
	uncovered int64 // bytes of segments behind covered

	forgotten  []string  // cursors to be taken out of the file
	ackedSince time.Time // the first Ack that the file does not know; zero: none

	room        chan struct{} // closed when trying an Append again makes sense
	roomWaiters int
	wanted      amount    // of an Append that did not fit into MaxSize or MaxRecords
	fullSince   time.Time // nothing could be freed for it; zero: not full
	trouble     error     // of the last commit, which is being tried again
	troubleAt   time.Time

	started, stopped, closing, closed bool
	lost                              bool // a group was given up

	compact compaction
	stats   counters
}

// segment is what memory knows of a segment in the file.
type segment struct {
	first, last uint64
	bytes       int64
	oldest      int64 // nanoseconds
	apart       bool  // damaged: not to be folded
}

// disk is what the store does to its file that can fail in ways which a test has
// to bring about.
type disk struct {
	commit func(*bolt.Tx) error
	sync   func(dir string) error
}

// Epoch names this data directory: random, made with the file. It is another one
// after an Open that found the file older than it should be, or damaged: what is
// appended since bears that, and what was stored before keeps its own.
func (s *Store) Epoch() record.Epoch { return s.about.epoch }

// Path of the file.
func (s *Store) Path() string { return s.path }

// oldest is the position of the oldest record in the file, or where the next one
// will stand.
func (s *Store) oldest() uint64 {
	if len(s.segments) == 0 {
		return s.end + 1
	}
	return s.segments[0].first
}

func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Forget takes a cursor that is not open out of the file, so that what only it
// holds is freed. It returns when that is on disk; Run must be running. It fails
// with ErrNoCursor or ErrCursorInUse.
func (s *Store) Forget(ctx context.Context, name string) error {
	s.mu.Lock()
	c := s.cursors[name]
	switch {
	case s.stopped:
		s.mu.Unlock()
		return ErrClosed
	case c == nil:
		s.mu.Unlock()
		return ErrNoCursor
	case !c.held:
		s.mu.Unlock()
		return ErrCursorInUse
	}
	delete(s.cursors, name)
	s.forgotten = append(s.forgotten, name)
	s.pending.urgent = true
	commit := s.pending.side()
	s.wake()
	s.mu.Unlock()
	return commit.Wait(ctx)
}

// Flush returns when everything appended so far is on disk, however long it might
// have waited for company. Run must be running.
func (s *Store) Flush(ctx context.Context) error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return ErrClosed
	}
	s.pending.urgent = true
	commit := s.pending.commit
	s.wake()
	s.mu.Unlock()
	return commit.Wait(ctx)
}

// Close ends Run if it is running, writes what acknowledgements are not yet in the
// file, and closes it. Records that could not be committed are given up: their
// Commit says ErrClosed. Close the store after everything that uses it.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	started := s.started
	s.wake()
	s.mu.Unlock()
	if started {
		<-s.ran
	}
	flushed := s.finish()
	s.mu.Lock()
	s.closed = true
	for _, c := range s.cursors {
		if !c.held {
			c.wake()
		}
	}
	s.mu.Unlock()
	s.swap.Lock()
	defer s.swap.Unlock()
	return errors.Join(flushed, s.db.Close(), s.witness.close(), s.dir.Close())
}
