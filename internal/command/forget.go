package command

import (
	"fmt"
	"slices"
)

// tidy forgets what is old, now and then.
func (r *Room) tidy(now Instant) {
	if now.Up < r.tidyAt {
		return
	}
	r.tidyAt = now.Up + tidyEvery
	r.forget(func(e *entry) bool { return r.isOld(e, now) })
}

func (r *Room) isOld(e *entry, now Instant) bool {
	return r.age(now)-e.age >= r.cfg.Keep && e.left(now) == 0
}

// Ranks of what has ended, by how soon it makes way.
const (
	leastWorth = iota // it was refused, never accepted; or it is a read without a key, which has changed nothing
	keyless           // nobody but who has its ID can ask for it again
	keyed             // its key is a promise: it does not make way
)

func (e *entry) rank() int {
	switch {
	case e.now.State == Refused, e.now.Key == "" && e.now.Kind == Read:
		return leastWorth
	case e.now.Key == "":
		return keyless
	}
	return keyed
}

// makeRoom lets a new command in, or says why there is no room for it.
func (r *Room) makeRoom(e *entry, now Instant) error {
	s := stored{Version: storedVersion, Command: *e.now, From: now, Worth: e.worth, Saved: now, Age: r.age(now)}
	value, err := s.encode()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	need := int64(len(keyPrefix)+len(e.now.ID)+len(value)) + reserve
	if !r.hasRoom(1, need) {
		r.makeWay(1, need, now)
	}
	if !r.hasRoom(1, need) {
		return r.full()
	}
	return r.checkShare(e, need, now)
}

// hasRoom tells whether so many more commands and bytes can be kept.
func (r *Room) hasRoom(count int, bytes int64) bool {
	return len(r.byID)+count <= r.cfg.Max && bytes <= r.free()
}

// free is how many bytes nobody has, and nobody needs for an end.
func (r *Room) free() int64 { return r.mailbox.Size() - r.bytes - int64(r.open)*reserve }

// makeWay forgets what may be forgotten, until there is room for so much and a
// little more: looking through all of them for each new one would take long.
func (r *Room) makeWay(count int, bytes int64, now Instant) {
	const little = 64 // one of so many parts
	count += r.cfg.Max / little
	bytes += r.mailbox.Size() / little
	r.forget(func(e *entry) bool { return r.isOld(e, now) })
	for rank := leastWorth; rank < keyed; rank++ {
		r.forget(func(e *entry) bool { return e.rank() == rank && !r.hasRoom(count, bytes) })
	}
}

// full says which limit is reached.
func (r *Room) full() error {
	const none = "and none of them can be forgotten: each has not ended, or came with a key and has ended less than"
	if len(r.byID) >= r.cfg.Max {
		return fmt.Errorf("%w: %d are kept, which is the limit (max of [commands]), %s %s ago (keep)", ErrFull, len(r.byID), none, r.cfg.Keep)
	}
	return fmt.Errorf("%w: the %d that are kept take up %d bytes, the %d of them that have not ended reserve another %d for their ends, and there are %d in all, %s %s ago (keep of [commands])",
		ErrFull, len(r.byID), r.bytes, r.open, int64(r.open)*reserve, r.mailbox.Size(), none, r.cfg.Keep)
}

// checkShare minds that no device takes more than half of the room with what
// can't make way, if there are others.
func (r *Room) checkShare(e *entry, need int64, now Instant) error {
	if len(r.devices) == 1 || 2*len(r.byID) < r.cfg.Max && 2*r.free() > r.mailbox.Size() {
		return nil
	}
	count, bytes := 1, need
	for _, other := range r.order {
		switch {
		case other.now.Device != e.now.Device:
			continue
		case !other.now.State.Final():
			bytes += reserve
		case other.rank() < keyed || r.isOld(other, now):
			continue
		}
		count++
		bytes += int64(other.size)
	}
	if 2*count <= r.cfg.Max+1 && 2*bytes <= r.mailbox.Size() {
		return nil
	}
	return fmt.Errorf("%w: this device would take more than half of the room for all, %d commands (max of [commands]) and %d bytes, with those that have not ended, or came with a key and have ended less than %s ago (keep)",
		ErrFull, r.cfg.Max, r.mailbox.Size(), r.cfg.Keep)
}

// forget takes commands out that have ended for good.
func (r *Room) forget(which func(*entry) bool) {
	r.order = slices.DeleteFunc(r.order, func(e *entry) bool {
		if e.shown != e.now || !e.now.State.Final() || !which(e) {
			return false
		}
		if err := r.takeOut(e); err != nil {
			r.log.Error("a command can't be taken out of the mailbox", "command", e.now.ID, "error", err)
			return false
		}
		return true
	})
}

// takeOut makes a command one that nobody knows; its place in the order is left to
// the caller.
func (r *Room) takeOut(e *entry) error {
	if _, err := r.mailbox.Delete(keyPrefix + e.now.ID); err != nil {
		return err
	}
	r.bytes -= int64(e.size)
	delete(r.byID, e.now.ID)
	delete(r.byKey, e.now.ID)
	if r.byKey[e.now.Key] == e {
		delete(r.byKey, e.now.Key)
	}
	return nil
}

// keeps tells whether a command has not been taken out.
func (r *Room) keeps(e *entry) bool { return r.byID[e.now.ID] == e }
