package framed

import "time"

// The Stream has one read deadline, the reader two reasons to stop waiting: the
// caller's deadline, which anyone may move at any time, and the silence that
// its Framer asked for. The Stream gets whichever is first, and only while the
// reader waits.

// passed says which of the two is over.
type passed int

const (
	nothing         passed = iota
	callersDeadline        // and what had come by then has been read
	callersLastLook        // the caller's deadline, for the first time
	framersSilence
)

// SetReadDeadline implements transport.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		// With a monotonic reading, so that a step of the clock can't bring the
		// deadline back after the Stream has met it.
		t = time.Now().Add(time.Until(t))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline, c.looked = t, false
	if !c.waiting {
		return c.deadlineSet(nil)
	}
	return c.deadlineSet(c.setArmed(first(c.deadline, c.silence)))
}

// arm begins a wait. A Stream that refuses a deadline is closed or broken, and
// the read that follows tells.
func (c *Conn) arm(silence time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silence = silence
	c.waiting = true
	_ = c.setArmed(first(c.deadline, c.silence))
}

// disarm ends a wait.
func (c *Conn) disarm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = false
}

// passed says why the Stream's deadline is over. It is nothing when the caller
// moved his while we waited, or the Stream was a moment early.
func (c *Conn) passed() passed {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := first(c.deadline, c.silence)
	switch {
	case next.IsZero() || time.Now().Before(next):
		c.armed = next
		_ = c.stream.SetReadDeadline(next) // a Stream waits for the same time again only if told so
		return nothing
	case next.Equal(c.deadline) && c.looked:
		return callersDeadline
	case next.Equal(c.deadline):
		c.looked = true
		return callersLastLook
	}
	return framersSilence
}

// setArmed spares the Stream a deadline that it has.
func (c *Conn) setArmed(t time.Time) error {
	if t.Equal(c.armed) {
		return nil
	}
	c.armed = t
	return c.stream.SetReadDeadline(t)
}

// first is the earlier of two deadlines, of which zero is none.
func first(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
