package command

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Get returns a command as it is on disk, or ErrNotFound. What it points to must
// not be changed.
func (r *Room) Get(id string) (Command, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	e := r.byID[id]
	if e == nil || e.shown == nil {
		return Command{}, fmt.Errorf("command %.64q: %w", id, ErrNotFound)
	}
	return *e.shown, nil
}

// Wait returns a command once its end is on disk. Where the disk has not taken an
// end for two seconds, the command is returned as it has ended nevertheless, so
// that no answer is lost with the disk: that alone a crash may take back, and the
// command may be unknown or expired then. Wait fails with ErrNotFound, with
// ErrNotStored when Submit has withdrawn the command, or when ctx ends first; then
// the command is returned as it is told.
func (r *Room) Wait(ctx context.Context, id string) (Command, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	e := r.byID[id]
	if e == nil {
		return Command{}, fmt.Errorf("command %.64q: %w", id, ErrNotFound)
	}
	if e.now.State.Final() && e.shown != e.now && e.endBy == 0 {
		r.saveEnd(e, r.clock.Now(), true)
	}
	e.waiters++
	r.mu.Unlock()
	err := r.awaitEnd(ctx, e)
	if err != nil {
		err = fmt.Errorf("command %s has not ended: %w", id, err)
	}
	r.mu.Lock()
	e.waiters--
	switch {
	case e.shown != nil:
		return *e.shown, err
	case !r.keeps(e):
		err = fmt.Errorf("command %s was withdrawn: %w", id, ErrNotStored)
	}
	return Command{}, err
}

// awaitEnd returns when the end of a command is told, or ctx's error before.
func (r *Room) awaitEnd(ctx context.Context, e *entry) error {
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-e.over:
	}
	r.mu.Lock()
	late := time.NewTimer(e.endBy - r.clock.Now().Up)
	r.mu.Unlock()
	defer late.Stop()
	select {
	case <-e.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		r.tellUnstored(e)
	}
	return nil
}

// List returns commands as they are on disk, newest first. What they point to
// must not be changed.
func (r *Room) List(f Filter) []Command {
	const usual = 100
	if f.Limit <= 0 {
		f.Limit = usual
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	var list []Command
	for _, e := range slices.Backward(r.order) {
		if len(list) == f.Limit {
			break
		}
		if c := e.shown; c != nil && (f.Device == "" || f.Device == c.Device) && (f.State == "" || f.State == c.State) {
			list = append(list, *c)
		}
	}
	return list
}

// Stats may be called at any time.
func (r *Room) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{
		Waiting: r.open, Kept: len(r.order), Bytes: r.bytes, Damaged: r.damaged, Ended: maps.Clone(r.ended),
		MaxWaiting: r.cfg.MaxWaiting, Max: r.cfg.Max, MaxBytes: r.mailbox.Size(),
	}
}

// age is for how long the mailbox has been in use, as far as that is known: time
// that can't be measured does not count. Stored with each command, it goes on
// from one start to the next, so that a machine without a clock forgets, too, and
// none forgets too early.
func (r *Room) age(now Instant) time.Duration { return ageAt(r.base, r.baseAge, now) }

func ageAt(base Instant, age time.Duration, now Instant) time.Duration {
	passed, known := base.until(now)
	if !known {
		return age
	}
	return min(age+min(passed, maxAge), maxAge)
}
