package scheduler

import (
	"math/rand/v2"
	"time"
)

// device is what the rounds of one device share. The lane's goroutine writes it
// under the lane's mutex, and reads it without.
type device struct {
	id     string
	rounds []*round

	failures    int       // rounds in a row that ended without an answer
	silentUntil time.Time // not before then
	lastGood    time.Time
	reason      string
	timeouts    uint64
}

// silent notes a round without an answer. The time to the next probe doubles
// from the poll's period up to limit; a fifth of it is random, so that devices
// that died together aren't probed together.
func (d *device) silent(now time.Time, every, limit time.Duration, cause error) {
	d.failures++
	wait := every << min(d.failures, 16)
	if wait <= 0 || wait > limit {
		wait = max(limit, every)
	}
	d.silentUntil = now.Add(wait - rand.N(wait/5+1))
	d.reason = cause.Error()
}

func (d *device) recovered() { d.failures, d.silentUntil, d.reason = 0, time.Time{}, "" }

// refused notes an answer that was no good, or a line brought down. The device
// is there, so it is not probed but asked at its period.
func (d *device) refused(cause error) { d.reason = cause.Error() }
