package scheduler

import (
	"math/rand/v2"
	"time"
)

// stable is how long a link must stay open before an earlier trouble with it is
// forgotten.
const stable = time.Minute

// backoff is exponential with full jitter: each wait is random between 0 and a
// bound that doubles, so that many who lost the same peer don't return at once.
type backoff struct {
	min, max time.Duration
	bound    time.Duration
	since    time.Time // when the link was opened last; zero once trouble has begun
}

// next is how long to wait now. A link that held for a while starts anew.
func (b *backoff) next() time.Duration {
	if b.lasted(time.Now()) {
		b.bound = 0
	}
	b.since = time.Time{}
	b.bound = min(max(2*b.bound, b.min), b.max)
	return rand.N(b.bound)
}

// lasted tells whether the link that was opened last has held for a while.
func (b *backoff) lasted(now time.Time) bool { return !b.since.IsZero() && now.Sub(b.since) >= stable }

// stableAt is when the link that was opened last will have held for a while.
func (b *backoff) stableAt() time.Time { return b.since.Add(stable) }

func (b *backoff) opened(now time.Time) { b.since = now }

// reset forgets all trouble: the link has shown that it works.
func (b *backoff) reset() { b.bound = 0 }
