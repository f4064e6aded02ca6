package command

import (
	"slices"
	"time"
)

// left is how long e may still be sent. What can't be known is over.
func (e *entry) left(now Instant) time.Duration {
	passed, known := e.from.until(now)
	if !known {
		return 0
	}
	return max(e.worth-passed, 0)
}

// repeatable tells whether e may be sent again when nobody saw the outcome.
func (e *entry) repeatable() bool { return e.now.Repeat || e.now.Kind == Read }

// change gives e a new version of its command.
func (e *entry) change(f func(*Command)) {
	next := *e.now
	f(&next)
	e.now = &next
}

// advance starts the next command of a device that has nothing under way: its
// mark goes to disk, and when that is there, it to the line.
func (r *Room) advance(d *device, now Instant) {
	if now.Up < d.retryAt {
		return
	}
	r.delayed.remove(d)
	if d.current != nil || d.stopped || !r.running {
		return
	}
	for len(d.waiting) > 0 {
		e := d.waiting[0]
		d.waiting = d.waiting[1:]
		if e.left(now) == 0 {
			r.tooLate(e, now, d.whyLate(e))
			continue
		}
		ready, why := d.target.Line.Ready()
		if d.why = why; !ready {
			d.waiting = slices.Insert(d.waiting, 0, e)
			d.away = min(max(2*d.away, minAway), maxAway)
			r.delay(d, now, d.away)
			return
		}
		d.away = 0
		before := e.now
		e.change(func(c *Command) {
			c.State, c.Reason = Sending, ""
			c.Attempts++
		})
		if err := r.save(e, now, true); err != nil {
			r.log.Error("a command can't be sent, as that it is being sent can't be stored; it is tried again", "command", e.now.ID, "device", d.id, "error", err)
			e.now, d.why = before, notMarked
			d.waiting = slices.Insert(d.waiting, 0, e)
			r.delay(d, now, time.Second)
			return
		}
		d.current = e
		return
	}
}

// putBack lets a command wait again, ahead of the others. What was not sent was no
// attempt.
func (r *Room) putBack(e *entry, sent bool, reason string) {
	now := r.clock.Now()
	e.change(func(c *Command) {
		c.State, c.Reason = Queued, reason
		if !sent {
			c.Attempts--
		}
	})
	e.handed = false
	e.device.current = nil
	r.enqueue(e, now, true)
	r.mustSave(e, now, false)
}

// enqueue puts a command in its device's queue.
func (r *Room) enqueue(e *entry, now Instant, ahead bool) {
	at := len(e.device.waiting)
	if ahead {
		at = 0
	}
	e.device.waiting = slices.Insert(e.device.waiting, at, e)
	r.expireAt = min(r.expireAt, now.Up+e.left(now))
}

// tooLate ends a command that is not to be sent any more.
func (r *Room) tooLate(e *entry, now Instant, reason string) {
	if e.now.Attempts > 0 {
		r.finish(e, now, Unknown, "nobody saw the outcome when it was sent before; "+reason, nil)
		return
	}
	r.finish(e, now, Expired, reason, nil)
}

// finish ends a command that is not in a queue any more.
func (r *Room) finish(e *entry, now Instant, state State, reason string, answer *Answer) {
	e.change(func(c *Command) {
		c.State, c.Reason, c.Answer, c.Ended = state, reason, answer, now.Wall
	})
	r.open--
	r.ended[state]++
	if e.device != nil && e.device.current == e {
		e.device.current = nil
	}
	e.task = nil
	r.fitAnswer(e, now)
	close(e.over)
	r.saveEnd(e, now, e.waiters > 0)
	r.log.Info("command ended", "command", e.now.ID, "device", e.now.Device, "kind", e.now.Kind, "state", state, "reason", e.now.Reason)
}

// expire ends what has waited too long. It looks through all devices, so it does
// that every expireEvery at most; until then advance and hand see to it that
// nothing is sent too late.
func (r *Room) expire(now Instant) {
	if now.Up < r.expireAt {
		return
	}
	r.expireAt = never
	for _, d := range r.devices {
		var late []*entry
		d.waiting = slices.DeleteFunc(d.waiting, func(e *entry) bool {
			left := e.left(now)
			if left == 0 {
				late = append(late, e)
				return true
			}
			r.expireAt = min(r.expireAt, now.Up+max(left, expireEvery))
			return false
		})
		for _, e := range late {
			r.tooLate(e, now, d.whyLate(e))
		}
		r.expireMarked(d, now)
	}
}

// expireMarked ends a command whose mark does not get to disk in time: it was not
// handed to the line, and is not to be any more.
func (r *Room) expireMarked(d *device, now Instant) {
	e := d.current
	if e == nil || e.handed {
		return
	}
	if left := e.left(now); left > 0 {
		r.expireAt = min(r.expireAt, now.Up+max(left, expireEvery))
		return
	}
	e.change(func(c *Command) { c.Attempts-- })
	r.tooLate(e, now, d.whyLate(e))
	r.advance(d, now)
}

// notMarked is why a command waits while the disk does not take that it is being
// sent.
const notMarked = "it could not be stored in time that it is being sent. Is the disk full, or very slow? See /readyz"

// whyLate says what a command of d has waited for in vain.
func (d *device) whyLate(e *entry) string {
	const late = "its deadline passed while it waited"
	switch {
	case e.shown == nil, d.current != nil && !d.current.handed:
		return late + ": " + notMarked
	case d.why != "":
		return late + ": " + d.why
	}
	return late + " for its turn"
}
