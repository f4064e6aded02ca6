package mqtt

import (
	"math/rand/v2"
	"time"
)

// backoff is exponential with full jitter: each wait is random between 0 and a
// bound that doubles, so that many agents that lost the same broker don't all
// return at once. There is no last try.
type backoff struct{ bound time.Duration }

const (
	backoffMin = 200 * time.Millisecond
	backoffMax = 15 * time.Second
)

func (b *backoff) next() time.Duration {
	b.bound = min(max(2*b.bound, backoffMin), backoffMax)
	return rand.N(b.bound)
}

func (b *backoff) reset() { b.bound = 0 }
