package framed

import (
	"sync"
	"time"
)

// Deadline is a moment that a select can wait for, and that may be moved while
// it does. The zero value is ready and never passes.
type Deadline struct {
	mu      sync.Mutex
	timer   *time.Timer
	setting uint64 // counts Set, so that a timer that was too late to stop is known
	passed  chan struct{}
}

// Set moves the deadline; the zero time means none. Whoever waits waits for the
// new one. Set to zero what is no longer needed.
func (d *Deadline) Set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.setting++
	if d.passed == nil || d.over() {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		close(d.passed)
		return
	}
	setting := d.setting
	d.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if setting == d.setting {
			close(d.passed)
		}
	})
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
