package command

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"
)

var errDamaged = errors.New("its checksum is wrong")

// load takes up what the mailbox holds.
func (r *Room) load(now Instant) error {
	letters, err := r.mailbox.All()
	if err != nil {
		return err
	}
	newest := time.Duration(-1)
	var entries []*entry
	for _, l := range letters {
		if !strings.HasPrefix(l.Key, keyPrefix) {
			continue
		}
		size := len(l.Key) + len(l.Value)
		r.bytes += int64(size)
		var s stored
		err := errDamaged
		if !l.Damaged {
			err = s.decode(l.Key, l.Value)
		}
		if err != nil {
			r.damaged++
			r.log.Error("a command in the mailbox can't be read: it is left there, and what became of it is not known", "key", l.Key, "error", err)
			continue
		}
		// Going on from an older one would count time twice that passed unmeasured
		// before the newest.
		switch age := ageAt(s.Saved, s.Age, now); {
		case s.Age > newest:
			newest, r.baseAge = s.Age, age
		case s.Age == newest:
			r.baseAge = min(r.baseAge, age)
		}
		entries = append(entries, &entry{
			now: &s.Command, shown: &s.Command, from: s.From, worth: s.Worth, age: s.Age, size: size,
			over: make(chan struct{}), done: make(chan struct{}),
		})
	}
	r.base = now
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.now.ID, b.now.ID) })
	for _, e := range entries {
		r.keep(e)
		r.takeUp(e, now)
	}
	return nil
}

// takeUp goes on with a command where the process before has left it.
func (r *Room) takeUp(e *entry, now Instant) {
	if e.now.State.Final() {
		close(e.done)
		return
	}
	r.open++
	wasSending := e.now.State == Sending
	left := e.left(now)
	end := func(state State, reason string) {
		if e.now.Attempts > 0 {
			state, reason = Unknown, "the agent stopped while it was being sent, so that nobody saw the outcome; "+reason
		}
		r.finish(e, now, state, reason, nil)
	}
	e.device = r.devices[e.now.Device]
	if wasSending && !e.repeatable() {
		end(Unknown, "it does not say that it may be repeated")
		return
	}
	if left == 0 {
		end(Expired, "its deadline passed while the agent was not running, or may have: the time that has passed can't be known")
		return
	}
	if e.device == nil {
		end(Refused, "the device is no longer configured")
		return
	}
	task, err := e.device.target.Prepare(e.now.Request)
	if err != nil {
		end(Refused, words(err))
		return
	}
	e.task = task
	if wasSending {
		e.change(func(c *Command) {
			c.State, c.Reason = Queued, "the agent stopped while it was being sent; it is sent again, as it may be repeated"
		})
		r.mustSave(e, now, false)
	}
	r.enqueue(e, now, false)
}
