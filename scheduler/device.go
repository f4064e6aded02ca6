package scheduler

import (
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

// device is what the rounds of one device share. The lane's goroutine writes it
// under the lane's mutex, and reads it without.
type device struct {
	id     string
	rounds []*round

	failures    int       // rounds in a row that ended without an answer
	silentUntil time.Time // its polls are not tried before
	asked       time.Time // when its last transaction ended; only the lane's goroutine reads it
	lastGood    time.Time // when the last one that it answered did
	heardOut    time.Time // last, see hearsOut
	hearOuts    int       // since it was well for a while
	reason      string
	timeouts    uint64
	garbled     uint64
	foreign     uint64
	ignored     int // commands in a row that it has not answered

	patience patience
	budget   budget        // of its polls
	orders   budget        // of commands toward it
	rate     *rate.Limiter // nil: it takes any number of transactions

	ended []ended // rounds whose Task is to be told, in order; the first one's work is with a worker
}

// silent tells whether the device is in quarantine.
func (d *device) silent() bool { return d.failures > 0 }

// unanswered notes a round without an answer. The next one is asked at its period
// still; after that the time to the next probe doubles, from twice the period up
// to limit. A fifth of it is random, so that devices that died together aren't
// probed together.
func (d *device) unanswered(now time.Time, every, limit time.Duration, cause error) {
	d.failures++
	d.reason = cause.Error()
	if d.failures == 1 {
		if now.Sub(d.heardOut) >= hearOutAgain(1) {
			d.hearOuts = 0
		}
		d.silentUntil = now
		return
	}
	limit = max(limit, every)
	wait := limit
	if doublings := min(d.failures-1, 32); every <= limit>>doublings {
		wait = every << doublings
	}
	d.silentUntil = now.Add(wait - rand.N(wait/5+1))
}

func (d *device) recovered() { d.failures, d.silentUntil, d.reason = 0, time.Time{}, "" }

// refused notes an answer that was no good, or a line brought down. The device
// is there, so it is not probed but asked at its period.
func (d *device) refused(cause error) { d.reason = cause.Error() }

// budgetOf is what an unanswered request of r is taken from.
func (d *device) budgetOf(r *round) *budget {
	if r.job != nil {
		return &d.orders
	}
	return &d.budget
}

// waste is the share of a line's time that unanswered requests may take, of all
// its devices together. On a line loaded to 70 % that leaves the others their
// time.
const waste = 0.25

// budget is line time that unanswered requests may take: a share of all time,
// saved up to a limit. It may be overdrawn, and is paid back before the next.
// There are two for each device, so that none lives on the others' share, and one
// for the line.
type budget struct {
	share   float64 // of the line's time; 0: there is nobody to be hurt
	most    time.Duration
	saved   time.Duration
	updated time.Time
}

func (b *budget) spend(now time.Time, cost time.Duration) {
	if b.share > 0 {
		b.save(now)
		b.saved -= cost
	}
}

func (b *budget) save(now time.Time) {
	if b.updated.IsZero() {
		b.updated = now
	}
	if earned := time.Duration(b.share * float64(now.Sub(b.updated))); earned > 0 {
		b.saved += earned
		b.updated = now // not before something was earned: what is rounded off would add up
	}
	b.saved = min(b.saved, b.most)
}

// paid is from when on more may be spent: now, or when what was overdrawn is
// paid back.
func (b *budget) paid(now time.Time) time.Time {
	if b.share == 0 {
		return now
	}
	b.save(now)
	if b.saved > 0 {
		return now
	}
	return now.Add(time.Duration(float64(1-b.saved)/b.share) + 1) // by then 1 ns is saved, whatever is rounded
}
