package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Giving space back. bbolt uses the pages of freed records again, but its file does
// not shrink. So when half of the file and 16 MiB at least have been free for a
// minute, what lives is copied to a fresh file, which takes the place of the old one.
//
//	Run ──────commit──commit──commit───────commit──┬─catch up, commit, rename──commit──▶
//	  │                                            │
//	  └─ compactor: piece, rest, piece, rest, … ───┘ then gives the old file back in steps
//
// The compactor copies while the writer goes on, a piece at a time and resting four
// times as long, so that it takes a fifth of the disk at most; in each further round
// it copies what has come meanwhile, and rests less. When so little is left that it
// takes some milliseconds, the writer carries that over itself, commits the next
// group in the fresh file, and renames it: that one commit is what producers see of
// it. A crash leaves the old file or the new one, whole; the copy writes at most as
// much as it gives back.
//
// When anything goes wrong before the rename, the fresh file is thrown away and the
// old one goes on as if nothing had been. It is tried again after a minute, then
// two, four and so on up to an hour.
const (
	compactSlack    = 16 << 20
	compactSettle   = time.Minute
	minCompactRetry = time.Minute
	maxCompactRetry = time.Hour

	pieceTime  = 5 * time.Millisecond  // that one piece should take
	carryTime  = 10 * time.Millisecond // that the writer should take to carry over the rest
	minPiece   = 64 << 10              // bytes
	maxPiece   = 1 << 20
	firstRest  = 4 // times as long as a piece took
	maxRounds  = 12
	handOver   = 5 * time.Second // that the writer has for its part
	backInStep = 32 << 20        // bytes of the old file
	backRest   = 20 * time.Millisecond
)

var errTooBusy = errors.New("records come faster than they can be copied")

// CompactionStats is what an operator sees of the file giving space back. Counters
// start at 0 with Open.
type CompactionStats struct {
	Running bool  `json:"running,omitempty"`
	Done    int64 `json:"done,omitempty"`  // bytes copied, while it runs
	Total   int64 `json:"total,omitempty"` // bytes to copy, as far as is known

	Free      int64         `json:"free"`       // bytes inside the file that wait for records
	Count     uint64        `json:"count"`      // compactions done
	Failed    uint64        `json:"failed"`     // given up
	GivenBack int64         `json:"given_back"` // bytes, by all of them
	Last      time.Time     `json:"last,omitzero"`
	Took      time.Duration `json:"took"`              // the last one
	Swap      time.Duration `json:"swap"`              // the commit that put its file in place
	Stall     time.Duration `json:"stall"`             // the longest commit while it ran
	Problem   string        `json:"problem,omitempty"` // why the last one was given up
}

// compaction is guarded by Store.mu.
type compaction struct {
	settle  time.Duration
	since   time.Time   // it has been worth it; zero: it is not
	retryAt time.Time   // not before
	asked   *compactRun // by Compact, not begun
	run     *compactRun // under way
	backoff time.Duration
	stats   CompactionStats
}

// compactRun is one compaction.
type compactRun struct {
	done   chan struct{} // closed when it has ended
	err    error         // valid then
	cancel context.CancelCauseFunc

	ready   *transfer  // complete but for what has come since: the writer's turn. Guarded by Store.mu
	outcome chan error // what the writer made of it
	swap    time.Duration
	stall   time.Duration
}

func newCompactRun() *compactRun {
	return &compactRun{done: make(chan struct{}), outcome: make(chan error, 1)}
}

// Compact gives the free space in the file back now, however little it is, and returns
// when that is done; Stats tells how far it is. Run must be running. One that is
// under way already is waited for. After an error, or when ctx ends first, the queue
// is as good as before.
func (s *Store) Compact(ctx context.Context) error {
	s.mu.Lock()
	c := &s.compact
	run := cmp.Or(c.run, c.asked)
	switch {
	case s.stopped || s.closing:
		s.mu.Unlock()
		return ErrClosed
	case run == nil:
		run = newCompactRun()
		c.asked = run
		s.wake()
	}
	s.mu.Unlock()
	select {
	case <-run.done:
		return run.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// measureFile finds out whether it is worth it, after a commit.
func (s *Store) measureFile() {
	c := &s.compact
	c.stats.Free = int64(s.db.Stats().FreeAlloc) // without a look at the map, which may fault
	switch worth := c.stats.Free >= s.live+s.mail.bytes+compactSlack; {
	case !worth:
		c.since = time.Time{}
	case c.since.IsZero():
		c.since = time.Now()
	}
}

// offered tells that it is the writer's turn.
func (c *compaction) offered() bool { return c.run != nil && c.run.ready != nil }

// compactWait is how long the writer has nothing to do for it.
func (s *Store) compactWait() time.Duration {
	const long = time.Hour
	c := &s.compact
	switch {
	case c.run != nil, s.trouble != nil, s.suspect.needed:
		return long
	case c.asked != nil:
		return 0
	case c.since.IsZero():
		return long
	}
	return max(time.Until(c.since.Add(c.settle)), time.Until(c.retryAt), 0)
}

// startCompaction begins one if it is time. Only the writer calls it.
func (s *Store) startCompaction(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.compact
	if c.run != nil || s.closing || s.compactWait() > 0 {
		return
	}
	run := c.asked
	if run == nil {
		run = newCompactRun()
	}
	c.asked, c.run = nil, run
	ctx, run.cancel = context.WithCancelCause(context.WithoutCancel(ctx)) // Run stops it with a reason
	go s.compactor(ctx, run)
}

// stopCompaction ends one that is under way, and those that wait for one. It returns
// when nothing is left of it.
func (s *Store) stopCompaction(cause error) {
	s.mu.Lock()
	run, asked := s.compact.run, s.compact.asked
	s.compact.asked = nil
	s.mu.Unlock()
	if asked != nil {
		asked.err = cause
		close(asked.done)
	}
	if run != nil {
		run.cancel(cause)
		<-run.done
	}
}

// compactor does one compaction, in a goroutine of its own.
func (s *Store) compactor(ctx context.Context, run *compactRun) {
	began, before := time.Now(), s.size()
	err := s.compactFile(ctx, run)
	run.cancel(nil)
	given := before - s.size()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	c := &s.compact
	c.run, run.err = nil, err
	c.stats.Done, c.stats.Total = 0, 0
	defer close(run.done)
	if err == nil {
		c.stats.Count++
		c.stats.GivenBack += given
		c.stats.Last, c.stats.Took, c.stats.Swap, c.stats.Stall, c.stats.Problem = time.Now(), time.Since(began), run.swap, run.stall, ""
		c.backoff, c.since = 0, time.Time{}
		s.log.Info("the queue file has given space back", "file", s.path, "bytes", given, "left", before-given,
			"took", time.Since(began).Round(time.Millisecond), "longest_commit", run.stall.Round(100*time.Microsecond))
		return
	}
	c.backoff = min(max(2*c.backoff, minCompactRetry), maxCompactRetry)
	c.retryAt = time.Now().Add(c.backoff)
	if errors.Is(err, ErrClosed) {
		return
	}
	c.stats.Failed++
	if c.stats.Problem != err.Error() {
		c.stats.Problem = err.Error()
		s.log.Warn("the queue file could not give space back; nothing else suffers, and it is tried again", "file", s.path, "error", err)
	}
}

// size is how much of the disk the file takes.
func (s *Store) size() int64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// compactFile copies until the rest is small, has the writer do that, and gives the old
// file back.
func (s *Store) compactFile(ctx context.Context, run *compactRun) (err error) {
	s.mu.Lock()
	need := s.live + s.live/16 + s.mail.bytes + 4<<20
	s.mu.Unlock()
	if err := s.roomFor(need); err != nil {
		return err
	}
	t, err := newTransfer(s, need)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.discard()
		}
	}()
	p := pace{rest: firstRest}
	for range maxRounds {
		if err := s.round(ctx, t, &p); err != nil {
			return err
		}
		if _, left := t.lacks(); left <= p.affordable() {
			return s.offer(ctx, run, t)
		}
		p.rest /= 2
	}
	return errTooBusy
}

// roomFor tells whether the disk has room for a copy, and for what else may come.
func (s *Store) roomFor(need int64) error {
	const margin = 16 << 20
	free, _, err := diskFree(s.path)
	if err == nil && free < need+margin {
		return fmt.Errorf("the disk has %d MiB free, and a copy of what lives in the file takes %d", free>>20, (need+margin)>>20)
	}
	return err
}

// pace keeps the compactor from being in the way.
type pace struct {
	rest  float64       // times as long as a piece took
	bytes int64         // copied
	spent time.Duration // on them
}

// in is how many bytes can be copied in a time.
func (p *pace) in(d time.Duration) int64 {
	if p.spent == 0 {
		return minPiece
	}
	return min(max(int64(float64(p.bytes)*float64(d)/float64(p.spent)), minPiece), 4*maxPiece)
}

func (p *pace) piece() int64 { return min(p.in(pieceTime), maxPiece) }

// affordable is how many bytes the writer can carry over.
func (p *pace) affordable() int64 { return p.in(carryTime) }

// round copies what lives and is not in the fresh file.
func (s *Store) round(ctx context.Context, t *transfer, p *pace) error {
	list, left := t.lacks()
	s.mu.Lock()
	s.compact.stats.Total = s.compact.stats.Done + left
	s.mu.Unlock()
	for len(list) > 0 {
		began := time.Now()
		var rest []segment
		err := s.view(func(src *bolt.Tx) (err error) {
			rest, err = t.copy(src, list, p.piece())
			return err
		})
		if err != nil {
			return err
		}
		if err := writeOut(t.file); err != nil {
			return err
		}
		took := time.Since(began)
		size := bytesOf(list[:len(list)-len(rest)])
		list = rest
		p.bytes, p.spent = p.bytes+size, p.spent+took
		s.mu.Lock()
		s.compact.stats.Done += size
		s.stats.written += uint64(size)
		s.mu.Unlock()
		if err := sleep(ctx, time.Duration(p.rest*float64(took))); err != nil {
			return err
		}
	}
	if err := s.view(func(src *bolt.Tx) error { return t.finish(src, false) }); err != nil {
		return err
	}
	return t.db.Sync()
}

func bytesOf(list []segment) (n int64) {
	for _, seg := range list {
		n += seg.bytes
	}
	return n
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// offer has the writer put the fresh file in place, and gives the old one back.
func (s *Store) offer(ctx context.Context, run *compactRun, t *transfer) error {
	back, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer back.Close()
	// The transaction stays open until the writer is done: see transfer.finish.
	err = s.view(func(src *bolt.Tx) error {
		if err := t.finish(src, false); err != nil {
			return err
		}
		if err := t.db.Sync(); err != nil {
			return err
		}
		s.mu.Lock()
		run.ready = t
		s.wake()
		s.mu.Unlock()
		wait, cancel := context.WithTimeoutCause(ctx, handOver, errTooBusy)
		defer cancel()
		select {
		case err := <-run.outcome:
			return err
		case <-wait.Done():
		}
		s.mu.Lock()
		withdrawn := run.ready == t
		run.ready = nil
		s.mu.Unlock()
		if withdrawn {
			return context.Cause(wait)
		}
		return <-run.outcome
	})
	if err != nil {
		return err
	}
	t.release()
	giveBack(ctx, back)
	return nil
}

// giveBack frees the blocks of a file that has no name any more. A large one at a
// stroke would keep the syncs of others waiting. What is left is freed when it is closed.
func giveBack(ctx context.Context, f *os.File) {
	info, err := f.Stat()
	if err != nil {
		return
	}
	for size := info.Size() - backInStep; size > 0; size -= backInStep {
		if f.Truncate(size) != nil || sleep(ctx, backRest) != nil {
			return
		}
	}
}

// move takes the fresh file that the compactor offers, carries over what it lacks and
// the plan out in it, and puts it in place. It reports false if there is none, or it
// is no good: then the plan is to be carried out in the queue's file.
func (s *Store) move(p *plan) (moved bool, err error) {
	s.mu.Lock()
	if !s.compact.offered() {
		s.mu.Unlock()
		return false, nil
	}
	run := s.compact.run
	t := run.ready
	run.ready = nil
	s.mu.Unlock()
	began := time.Now()
	renamed := false
	err = s.view(func(src *bolt.Tx) error { return t.finish(src, true) })
	if err == nil {
		renamed, err = s.adopt(t, p, nil)
	}
	s.mu.Lock()
	run.swap = time.Since(began)
	run.stall = max(run.stall, run.swap)
	s.mu.Unlock()
	run.outcome <- err
	if err != nil && renamed {
		s.suspect = rescue{needed: true}
		s.stopCompaction(err) // which removes its file: the next one has the same name
	}
	return err == nil || renamed, err
}
