// Package file is the upstream that appends records to a file: JSON Lines, one
// object a record, on disk (fdatasync) before they count as delivered.
//
// The file is the agent's own while it runs: it is locked, and a torn last line
// is cut when it is opened. It may be rotated at any time, by renaming it or by
// copytruncate; the agent goes on in a new file under the old name.
package file

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/record"
)

// Bounds of the wait between two tries: soon enough to go on when somebody has
// made room, seldom enough not to grind on a broken disk.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
)

// pieceSize is about how much is encoded before it is written, in bytes; keepPiece
// is the largest buffer that is kept for the next batch.
const (
	pieceSize = 256 << 10
	keepPiece = 2 * pieceSize
)

var errClosed = errors.New("file upstream: closed")

// Upstream appends to one file. All methods may be called concurrently; batches
// are written one after another.
type Upstream struct {
	path string
	log  *slog.Logger

	done chan struct{} // closed when Run ends

	turn    chan struct{} // holds one token; who has it owns what follows
	journal *journal      // nil: not open
	buffers [2][]byte     // one is written while the other fills

	mu     sync.Mutex
	status upstream.Status
}

var _ upstream.Upstream = (*Upstream)(nil)

// New makes the upstream; it opens nothing yet.
func New(cfg Config, log *slog.Logger) *Upstream {
	u := &Upstream{path: cfg.Path, log: log, done: make(chan struct{}), turn: make(chan struct{}, 1)}
	u.turn <- struct{}{}
	u.status = upstream.Status{Reason: "not opened yet", Endpoint: cfg.Path}
	return u
}

// Run opens the file, so that Status tells early what is wrong with it, and
// closes it when ctx ends. It always returns nil. Send fails after that.
func (u *Upstream) Run(ctx context.Context) error {
	_ = u.persist(ctx, u.open) // fails only because ctx ended
	<-ctx.Done()
	close(u.done)
	<-u.turn // kept: nobody opens the file again
	u.close()
	return nil
}

// Send returns nil when every record of the batch is on disk, and keeps trying
// until ctx ends. No half line and no repeat is left in the file by what failed
// on the way; a kill in the midst may leave whole lines of the batch.
func (u *Upstream) Send(ctx context.Context, batch []record.Record) error {
	if len(batch) == 0 {
		return nil
	}
	return u.persist(ctx, func() error { return u.append(batch) })
}

// Status may be called at any time.
func (u *Upstream) Status() upstream.Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

// persist does what needs the file, holding the turn throughout so that batches
// keep their order, until it succeeds or ctx ends.
func (u *Upstream) persist(ctx context.Context, do func() error) error {
	select {
	case <-u.turn:
		defer func() { u.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	case <-u.done:
		return errClosed
	}
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := do()
		u.note(err)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return ctx.Err()
		case <-u.done:
			return errClosed
		}
	}
}

// pieces encodes a batch piece by piece, into two buffers in turn: a piece is
// good until the next but one.
func (u *Upstream) pieces(batch []record.Record) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for turn := 0; len(batch) > 0; turn = 1 - turn {
			b := u.buffers[turn][:0]
			for len(batch) > 0 && len(b) < pieceSize {
				b = append(batch[0].AppendJSON(b), '\n')
				batch = batch[1:]
			}
			u.buffers[turn] = nil
			if cap(b) <= keepPiece {
				u.buffers[turn] = b
			}
			if !yield(b) {
				return
			}
		}
	}
}

func (u *Upstream) append(batch []record.Record) error {
	if u.journal != nil && !u.journal.current(u.path) {
		u.log.Info("file was moved or deleted, going on in a new one", "file", u.path)
		u.close()
	}
	if err := u.open(); err != nil {
		return err
	}
	usable, err := u.journal.append(u.pieces(batch))
	if !usable {
		u.close()
	}
	return err
}

func (u *Upstream) open() (err error) {
	if u.journal == nil {
		u.journal, err = openJournal(u.path)
	}
	return err
}

func (u *Upstream) close() {
	if u.journal != nil {
		u.journal.close()
		u.journal = nil
	}
}

// note tells the outcome of a try, in the log only when it is news.
func (u *Upstream) note(err error) {
	reason := ""
	if err != nil {
		reason = explain(err)
	}
	u.mu.Lock()
	before := u.status
	u.status.Connected, u.status.Reason = err == nil, reason
	u.mu.Unlock()
	switch {
	case err != nil && before.Reason != reason:
		u.log.Warn("can't write, trying again until it works", "file", u.path, "error", reason)
	case err == nil && !before.Connected:
		u.log.Info("file is open", "file", u.path)
	}
}

// explain adds what to do to the errors that an operator can mend.
func explain(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err.Error() + ": make its folder"
	case errors.Is(err, fs.ErrPermission):
		return err.Error() + ": let the agent's user write there"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return err.Error() + ": make room, nothing is lost meanwhile"
	}
	return err.Error()
}
