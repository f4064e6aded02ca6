package framed

import (
	"sync"
	"time"
)

// Deadline is a moment that a select can wait for, and that may be moved while
// it does. The zero value is ready and never passes. Moving it allocates nothing
// but the first time, and after it has passed.
type Deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	at     time.Time // zero: none
	passed chan struct{}
}

// Set moves the deadline; the zero time means none. Whoever waits waits for the
// new one. Set to zero what is no longer needed.
func (d *Deadline) Set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	if d.passed == nil || d.over() {
		d.passed = make(chan struct{})
	}
	switch {
	case d.timer == nil && !t.IsZero():
		d.timer = time.AfterFunc(time.Until(t), d.ring)
	case d.timer != nil && t.IsZero():
		d.timer.Stop()
	case d.timer != nil:
		d.timer.Reset(time.Until(t))
	}
	if !t.IsZero() && time.Until(t) <= 0 {
		close(d.passed)
	}
}

// ring may come too late to be stopped, for a deadline that has been moved.
func (d *Deadline) ring() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() || d.over() {
		return
	}
	if wait := time.Until(d.at); wait > 0 {
		d.timer.Reset(wait)
		return
	}
	close(d.passed)
}

// Passed returns a channel that is closed when the deadline has passed. After
// that, a Set makes a new one.
func (d *Deadline) Passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	return d.passed
}

func (d *Deadline) over() bool {
	select {
	case <-d.passed:
		return true
	default:
		return false
	}
}
