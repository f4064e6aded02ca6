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
	if !b.since.IsZero() && time.Since(b.since) >= stable {
		b.bound = 0
	}
	b.since = time.Time{}
	b.bound = min(max(2*b.bound, b.min), b.max)
	return rand.N(b.bound)
}

func (b *backoff) opened(now time.Time) { b.since = now }

// reset forgets all trouble: the link has shown that it works.
func (b *backoff) reset() { b.bound = 0 }
