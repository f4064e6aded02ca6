package command

import (
	"errors"
	"fmt"
	"time"
)

// settle takes over what is on disk by now.
func (r *Room) settle() {
	for len(r.commits) > 0 {
		s := r.commits[0]
		select {
		case <-s.commit.Done():
		default:
			return
		}
		r.commits = r.commits[1:]
		if s.commit.Err() == nil {
			r.stored(s.entry, s.version)
		}
	}
	r.commits = nil // lets go of the array
}

func (r *Room) stored(e *entry, version *Command) {
	if !r.keeps(e) || e.shown != nil && e.shown.State.Final() {
		return
	}
	e.shown = version
	switch {
	case version.State.Final():
		close(e.done)
	case version.State == Sending && e.now == version:
		r.ready = append(r.ready, e)
		r.rouse()
	}
}

// save writes an entry as it is. One that the mailbox does not take is tried
// again.
func (r *Room) save(e *entry, now Instant, urgent bool) error {
	e.age = r.age(now)
	s := stored{Version: storedVersion, Command: *e.now, From: e.from, Worth: e.worth, Saved: now, Age: e.age}
	value, err := s.encode()
	if err != nil {
		return err
	}
	put := r.mailbox.PutLater
	if urgent {
		put = r.mailbox.Put
	}
	key := keyPrefix + e.now.ID
	commit, err := put(key, value)
	if err != nil {
		return err
	}
	if e.first == nil {
		e.first = commit
	}
	r.bytes += int64(len(key) + len(value) - e.size)
	e.size = len(key) + len(value)
	r.commits = append(r.commits, saving{commit, e, e.now})
	r.rouse()
	return nil
}

// mustSave is save for an entry that was saved before. In memory it counts at
// once; what is told of it stays as it is on disk.
func (r *Room) mustSave(e *entry, now Instant, urgent bool) {
	if err := r.save(e, now, urgent); err != nil {
		r.log.Error("what became of a command can't be stored; it is tried again", "command", e.now.ID, "device", e.now.Device, "state", e.now.State, "error", err)
		r.unsaved = append(r.unsaved, e)
		r.retryAt = min(r.retryAt, now.Up+time.Second)
	}
}

func (r *Room) saveAgain(now Instant) {
	if now.Up < r.retryAt {
		return
	}
	list := r.unsaved
	r.unsaved, r.retryAt = nil, never
	for _, e := range list {
		if r.keeps(e) {
			r.mustSave(e, now, true)
		}
	}
}

// saveEnd is mustSave for an end; one that somebody waits for is in a hurry.
func (r *Room) saveEnd(e *entry, now Instant, urgent bool) {
	if urgent {
		e.endBy = now.Up + endStoring
	}
	r.mustSave(e, now, urgent)
}

// tellUnstored tells an end that does not get to disk.
func (r *Room) tellUnstored(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	if !r.keeps(e) || e.shown == e.now {
		return
	}
	r.log.Warn("the end of a command is told before it is on disk, which is full or very slow", "command", e.now.ID, "device", e.now.Device)
	e.shown = e.now
	close(e.done)
}

// fitAnswer drops an answer that is too large, or finds no room beside what other
// commands need for their end.
func (r *Room) fitAnswer(e *entry, now Instant) {
	if e.now.Answer == nil {
		return
	}
	s := stored{Version: storedVersion, Command: *e.now, From: e.from}
	value, err := s.encode()
	need := int64(len(value)-e.size) + reserve
	small := len(e.now.Answer.Payload) <= r.cfg.MaxPayload && int64(len(value))+reserve < r.mailbox.Size()/4
	if err == nil && small && need >= r.free() {
		r.makeWay(0, need, now)
	}
	switch {
	case err == nil && small && need < r.free():
		return
	case err == nil:
		err = fmt.Errorf("its answer of %d bytes was not kept, as it is larger than max_payload or the mailbox has no room for it", len(value)-e.size)
	}
	if e.now.Reason != "" {
		err = errors.New(e.now.Reason + "; " + err.Error())
	}
	e.change(func(c *Command) { c.Answer, c.Reason = nil, words(err) })
}
