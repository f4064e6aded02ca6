package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	// maxYields bounds how long the writer waits for a group that still grows. A
	// timer would cost each producer its whole period.
	maxYields = 20

	// quietYields in a row that bring nothing end that wait: one alone may have
	// gone to somebody who does not append.
	quietYields = 3

	// quiet between two commits is when there is time for work that can wait.
	quiet = 20 * time.Millisecond

	// minAckDelay bounds how often acknowledgements alone are written.
	minAckDelay = 100 * time.Millisecond

	// A commit that failed is tried again after these.
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
)

// Run commits what is appended, until ctx ends or the store is closed; then it
// commits the rest and returns nil. It is called once.
func (s *Store) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.started || s.closing {
		s.mu.Unlock()
		return errors.New("store: Run was called twice, or after Close")
	}
	s.started = true
	s.mu.Unlock()
	defer close(s.ran)
	s.mu.Lock()
	s.measureFile()
	s.mu.Unlock()
	for last := time.Now(); s.await(ctx); last = time.Now() {
		s.busy = time.Since(last) < quiet
		s.gather()
		s.write(ctx, s.take())
	}
	s.mu.Lock()
	s.stopped = true
	s.announceRoom()
	s.mu.Unlock()
	s.stopCompaction(ErrClosed)
	return s.finish()
}

// await returns true when there is something to write, and false to stop.
func (s *Store) await(ctx context.Context) bool {
	for {
		s.startCompaction(ctx)
		s.look()
		wait, stop := s.due()
		switch {
		case stop || ctx.Err() != nil:
			return false
		case wait <= 0:
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.kick:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// due tells how long nothing needs to be written.
func (s *Store) due() (wait time.Duration, stop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.pending
	wait = max(s.compactWait(), time.Millisecond) // what is due is begun by await
	switch {
	case s.closing:
		return 0, true
	case g.urgent, s.compact.offered(), s.wanted.some() && s.canFree():
		return 0, false
	case int64(len(g.segment)) > s.maxGroup/2:
		return 0, false
	}
	if s.wanted.some() && s.fullSince.IsZero() {
		s.becomeFull()
	}
	if g.begun() {
		wait = min(wait, time.Until(g.since.Add(s.cfg.CommitDelay)))
	}
	if !s.ackedSince.IsZero() {
		wait = min(wait, time.Until(s.ackedSince.Add(max(s.cfg.CommitDelay, minAckDelay))))
	}
	return min(wait, s.ageWait(), s.lookWait()), false
}

// gather lets producers that are about to append do so, for as long as that makes
// the group grow.
func (s *Store) gather() {
	last, still := uint32(0), 0
	for i := 0; i < maxYields && still < quietYields; i++ {
		runtime.Gosched()
		s.mu.Lock()
		count, full := s.pending.header.count, int64(len(s.pending.segment)) > s.maxGroup/2
		s.mu.Unlock()
		if full {
			return
		}
		still++
		if count != last {
			last, still = count, 0
		}
	}
}

// take ends the pending group and starts the next one.
func (s *Store) take() *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.pending
	s.pending = newGroup(s.spare)
	s.spare = spare{}
	g.header.first = s.end + 1
	g.seal()
	if s.closing || s.stopped || s.coverNow(g) || s.checkpointDue(int64(len(g.segment))) {
		g.checkpoint = s.encodeCheckpoint(g.end(), nil)
	}
	s.writing = g.amount()
	s.announceRoom()
	return g
}

// seal completes the segment.
func (g *group) seal() {
	if g.header.count == 0 {
		g.segment = g.segment[:0]
		return
	}
	records := len(g.segment)
	g.segment = appendMarks(g.segment, g.marks)
	g.header.records = uint32(records - headerSize)
	g.header.marks = uint32(len(g.segment) - records)
	g.header.marksum = checksum(g.segment[records:])
	g.header.put(g.segment)
}

// end is the position of the group's last record, or of the one before the group
// if it has none.
func (g *group) end() uint64 { return g.header.first + uint64(g.header.count) - 1 }

// write commits the group, however often it must try, until ctx ends.
func (s *Store) write(ctx context.Context, g *group) {
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		err := s.commit(g)
		if err == nil {
			return
		}
		s.failed(err)
		if errors.Is(err, errNoRoom) && len(g.parts) == 0 {
			g.split()
		}
		freed := false
		if isDiskFull(err) {
			freed, _ = s.commitRest(g) // if that fails, too, it is tried again with g
		}
		if !freed {
			var goOn bool
			if goOn, freed = s.pause(ctx, g, wait); !goOn {
				s.lastAside(g, err)
				s.giveUp(g)
				return
			}
		}
		if freed {
			wait = minRetry / 2 // bbolt may give pages out one commit later
		}
		s.look()
	}
}

// pause waits before g is tried again; goOn is false when the store is to stop. While the
// disk is full, what is no record is committed meanwhile: freed tells that this has
// made room.
func (s *Store) pause(ctx context.Context, g *group, d time.Duration) (goOn, freed bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	tick := time.NewTicker(minAckDelay)
	defer tick.Stop()
	for works := isDiskFull(s.trouble); ; { // only the writer changes trouble
		if works && s.restDue(g) {
			freed, err := s.commitRest(g)
			if works = err == nil; freed {
				return true, true
			}
		}
		select {
		case <-timer.C:
			return true, false
		case <-tick.C:
		case <-ctx.Done():
			return false, false
		case <-s.kick:
			s.mu.Lock()
			closing := s.closing
			s.mu.Unlock()
			if closing {
				return false, false
			}
		}
	}
}

// finish commits what is left, with one attempt, and gives up what can't be.
func (s *Store) finish() error {
	s.mu.Lock()
	s.stopped = true
	s.announceRoom()
	idle := !s.pending.begun() && !s.pending.urgent && s.ackedSince.IsZero() && s.covered == s.end && !s.ages.moved
	lost := s.lost
	s.mu.Unlock()
	switch {
	case lost:
		s.giveUp(s.take())
		return nil
	case idle:
		return nil
	}
	g := s.take()
	if err := s.commit(g); err != nil {
		s.lastAside(g, err)
		s.giveUp(g)
		return fmt.Errorf("store: the last commit to %s failed: %w", s.path, err)
	}
	return nil
}

// giveUp ends a group without its being on disk. Nothing may be committed after
// it: that would bear numbers that follow on those of the group.
func (s *Store) giveUp(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
	s.writing = amount{}
	g.finish(fmt.Errorf("store: %w", ErrClosed))
}

// commit writes the group, and everything else that has changed, in one
// transaction.
func (s *Store) commit(g *group) (err error) {
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	began := time.Now()
	p, done := s.plan(g), false
	defer func() {
		if !done {
			s.undone(p)
		}
		s.unfence()
	}()
	if err := s.transact(p); err != nil {
		return err
	}
	done = true
	s.testify(s.txid, g.end())
	s.publish(p, time.Since(began))
	g.finish(nil) // not under the lock, for which all that wake up ask next
	return nil
}

// failed notes why the commit has to be tried again.
func (s *Store) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble == nil {
		s.troubleAt = time.Now()
	}
	if s.trouble == nil || s.trouble.Error() != err.Error() {
		s.log.Error("writing the queue failed: nothing is acknowledged until it works; it is tried again", "file", s.path, "error", err)
	}
	s.trouble = err
	s.stats.failures++
	if isDiskFull(err) {
		s.becomeLow(!s.headroom.low)
		s.headroom.ceiling = s.live
	}
}

// recovered notes that a commit worked.
func (s *Store) recovered() {
	if s.trouble != nil {
		s.log.Info("the queue can be written again, nothing was lost", "file", s.path, "after", time.Since(s.troubleAt).Round(time.Millisecond))
		s.trouble = nil
	}
}

func isDiskFull(err error) bool {
	return errors.Is(err, errNoRoom) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
