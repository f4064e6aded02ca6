package mcp

import (
	"fmt"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
)

const (
	// maxDebt is how long a device that is ahead of its rate is made to wait;
	// beyond it the session ends. It is well below the 90 s after which a peer
	// takes the session for dead, and the handler is heard of meanwhile.
	maxDebt = 5 * time.Second
	// maxBuckets bounds the table. A full bucket needs no place in it, so only
	// as many devices count as publish at the same time.
	maxBuckets = 1 << 16
	// sweepEvery is how often at most full buckets are looked for.
	sweepEvery = 100 * time.Millisecond
)

// deviceKey names a device: an agent below may have one of the same name.
type deviceKey struct{ agent, device string }

// share is how many records of a batch are of one device.
type share struct {
	device  deviceKey
	records int
}

// rates are the token buckets of a Server's devices. A nil one limits nobody.
type rates struct {
	each  time.Duration // a record, at the permitted rate
	burst time.Duration // what a full bucket holds, in time

	mu    sync.Mutex
	full  map[deviceKey]time.Time // when the bucket will be full again
	swept time.Time
}

// newRates takes records a second, and how many of them at once.
func newRates(rate, burst int) *rates {
	if rate <= 0 {
		return nil
	}
	each := time.Second / time.Duration(rate)
	return &rates{each: each, burst: time.Duration(burst) * each, full: make(map[deviceKey]time.Time)}
}

// take takes a batch out of the buckets of its devices, or says how long to
// wait first. A bucket that is not in debt lets any batch pass, and goes into
// debt by it: else one larger than the burst would be refused for ever.
func (r *rates) take(batch []share, now time.Time) (wait time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range batch {
		full, known := r.full[s.device]
		if !known {
			continue
		}
		debt := full.Sub(now) - r.burst
		if debt > maxDebt {
			return 0, &mcp.Error{Code: mcp.CodeRateExceeded, Reason: fmt.Sprintf(
				"%s may publish %d records/s, and %d at once; go on in %s", s.device.device, time.Second/r.each, r.burst/r.each, debt.Round(time.Millisecond))}
		}
		wait = max(wait, debt)
	}
	if wait > 0 {
		return wait, nil
	}
	if len(r.full) >= maxBuckets && !r.sweep(now) {
		return sweepEvery, nil
	}
	for _, s := range batch {
		from := r.full[s.device]
		if from.Before(now) {
			from = now
		}
		r.full[s.device] = from.Add(time.Duration(s.records) * r.each)
	}
	return 0, nil
}

// sweep forgets full buckets, and says whether there is room now. The caller
// holds mu.
func (r *rates) sweep(now time.Time) bool {
	if now.Sub(r.swept) < sweepEvery {
		return false
	}
	r.swept = now
	for device, full := range r.full {
		if !full.After(now) {
			delete(r.full, device)
		}
	}
	return len(r.full) < maxBuckets
}
