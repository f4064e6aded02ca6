package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

// Submit takes a request and returns once the command is on disk. For a key that
// is known it returns that command as it is now, with Known set. The errors:
//
//	ErrNoDevice   nothing is stored
//	ErrRefused    it can't be done. The command is returned with its reason, stored and listed, unless it
//	              breaks a limit of what can be stored: then it has no ID
//	ErrKeyTaken   the key stands for another request
//	ErrFull       a limit of Config is reached
//	ErrNotStored  the disk failed, or did not take it for 10 s, or for its own time if that is less (but at least
//	              1 s): then the command has been withdrawn and is not sent. Or ctx ended first: then it has an
//	              ID, and may yet be stored and carried out until its deadline; Get tells
//
// One case is left in which a command that was withdrawn is sent: the disk
// recovers, the agent crashes before the withdrawal is on disk too, and starts
// again before the deadline.
//
// Payload and Points are copied.
func (r *Room) Submit(ctx context.Context, q Request) (Command, error) {
	c, err := r.submit(ctx, q)
	if err != nil {
		return c, fmt.Errorf("command for %.64q: %w", q.Device, err)
	}
	return c, nil
}

func (r *Room) submit(ctx context.Context, q Request) (Command, error) {
	if err := r.checkForm(&q); err != nil {
		return Command{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if e, err := r.known(q); err != nil {
		return Command{}, err
	} else if e != nil {
		return r.told(ctx, e, true)
	}
	d := r.devices[q.Device]
	if d == nil {
		return Command{}, ErrNoDevice
	}
	q = own(q)
	task, why := Task(nil), checkSense(&q)
	if why == nil {
		task, why = d.target.Prepare(q)
	}
	e, known, err := r.accept(d, q, task, why)
	if err != nil {
		return Command{}, err
	}
	return r.told(ctx, e, known)
}

// own is q without what its maker may yet change.
func own(q Request) Request {
	q.Payload, q.Points = bytes.Clone(q.Payload), slices.Clone(q.Points)
	if q.Value != nil {
		value := *q.Value
		q.Value = &value
	}
	return q
}

// known finds the command that a request's key stands for.
func (r *Room) known(q Request) (*entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.find(q)
}

func (r *Room) find(q Request) (*entry, error) {
	e := r.byKey[q.Key]
	if q.Key == "" || e == nil {
		return nil, nil
	}
	if !sameRequest(e.now.Request, q) {
		return nil, fmt.Errorf("%w, command %s of %s: give a new one", ErrKeyTaken, e.now.ID, e.now.Submitted.Format(time.RFC3339))
	}
	return e, nil
}

// accept makes a command of a request, and starts it if its device has nothing
// else under way: then one commit holds both. The key may have become known
// meanwhile.
func (r *Room) accept(d *device, q Request, task Task, why error) (e *entry, known bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	if e, err := r.find(q); e != nil || err != nil {
		return e, true, err
	}
	now := r.clock.Now()
	if why == nil && len(d.waiting) >= r.cfg.MaxWaiting {
		return nil, false, fmt.Errorf("%w: %d wait for this device, which is the limit (max_waiting of [commands])", ErrFull, len(d.waiting))
	}
	e = r.newEntry(q, now)
	e.device, e.task = d, task
	if err := r.makeRoom(e, now); err != nil {
		return nil, false, err
	}
	if why != nil {
		e.change(func(c *Command) { c.State, c.Reason, c.Ended = Refused, words(why), now.Wall })
	} else {
		r.open++
		r.enqueue(e, now, false)
		r.advance(d, now)
	}
	if e.first == nil {
		if err := r.save(e, now, true); err != nil {
			r.dismiss(e)
			if errors.Is(err, store.ErrMailboxFull) || errors.Is(err, store.ErrTooLarge) {
				return nil, false, fmt.Errorf("%w: %w", ErrFull, err)
			}
			return nil, false, fmt.Errorf("%w: %w", ErrNotStored, err)
		}
	}
	if why != nil {
		r.ended[Refused]++
	}
	r.keep(e)
	return e, false, nil
}

// dismiss takes back a command that is not stored.
func (r *Room) dismiss(e *entry) {
	if e.now.State.Final() {
		return
	}
	r.open--
	d := e.device
	d.waiting = slices.DeleteFunc(d.waiting, func(other *entry) bool { return other == e })
}

func (r *Room) newEntry(q Request, now Instant) *entry {
	worth := time.Duration(q.Timeout)
	if worth == 0 {
		worth = r.cfg.Timeout
	}
	return &entry{
		now: &Command{
			ID: newID(now.Wall, r.lastID), Request: q, State: Queued, Submitted: now.Wall, Deadline: now.Wall.Add(worth),
		},
		from: now, worth: worth, over: make(chan struct{}), done: make(chan struct{}),
	}
}

// keep makes a command known.
func (r *Room) keep(e *entry) {
	c := e.now
	r.lastID = c.ID
	r.byID[c.ID], r.byKey[c.ID] = e, e
	if c.Key != "" {
		r.byKey[c.Key] = e
	}
	r.order = append(r.order, e)
}

// told waits until a command is on disk, and tells how it stands.
func (r *Room) told(ctx context.Context, e *entry, known bool) (c Command, err error) {
	late, err := r.awaitStored(ctx, e)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	if late && e.shown == nil && r.keeps(e) {
		err = r.withdraw(e)
	}
	switch {
	case e.shown == nil && !r.keeps(e):
		return Command{}, fmt.Errorf("%w: it is not on disk after %s, as the disk is full or very slow (see /readyz). It has been withdrawn: nothing was sent, and nothing will be",
			ErrNotStored, r.storing(e))
	case err != nil:
		c, err = *e.now, fmt.Errorf("%w: command %s: %w", ErrNotStored, e.now.ID, err)
	case e.shown.State == Refused:
		c, err = *e.shown, fmt.Errorf("%w: %s", ErrRefused, e.shown.Reason)
	default:
		c = *e.shown
	}
	c.Known = known
	return c, err
}

// storing is how long a command may take to get to disk.
func (r *Room) storing(e *entry) time.Duration { return min(max(e.worth, minStoring), maxStoring) }

// awaitStored returns when a command is on disk or has been withdrawn, when it is
// late for that, or with an error when it never will be, or ctx ends.
func (r *Room) awaitStored(ctx context.Context, e *entry) (late bool, err error) {
	if e.first == nil { // it was there at start
		return false, nil
	}
	timer := time.NewTimer(r.storing(e))
	defer timer.Stop()
	select {
	case <-e.first.Done():
		return false, e.first.Err()
	case <-e.done:
		return false, nil
	case <-timer.C:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// withdraw takes back a command that does not get to disk. Should it get there
// yet, what takes it out follows.
func (r *Room) withdraw(e *entry) error {
	if err := r.takeOut(e); err != nil {
		return err
	}
	r.log.Warn("a command was withdrawn: it could not be stored in time", "command", e.now.ID, "device", e.now.Device, "kind", e.now.Kind)
	r.order = slices.DeleteFunc(r.order, func(other *entry) bool { return other == e })
	r.dismiss(e)
	close(e.done)
	if d := e.device; d.current == e {
		d.current = nil
		r.advance(d, r.clock.Now())
	}
	return nil
}
