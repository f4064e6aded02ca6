package scheduler

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/mcp-edge/edge-agent/transport"
)

// BreakerState of a link.
type BreakerState string

// A breaker is closed while the port works or fails now and then, open while
// nothing is tried, half-open when one attempt is due or under way.
const (
	BreakerClosed   BreakerState = "closed"
	BreakerOpen     BreakerState = "open"
	BreakerHalfOpen BreakerState = "half-open"
)

// breaker counts the faults of a link's port. It is two of gobreaker's: one
// counts to Failures and then opens for Open; after that, one that opens for
// Probe at each fault. The lane's goroutine owns it.
type breaker struct {
	cfg      BreakerConfig
	counting *gobreaker.CircuitBreaker[struct{}]
	probing  *gobreaker.CircuitBreaker[struct{}] // nil while counting is closed
	troubled bool                                // a fault was noted since the last success
	until    time.Time                           // nothing is tried before
}

func newBreaker(cfg BreakerConfig) breaker { return breaker{cfg: cfg} }

func circuit(failures int, open time.Duration) *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     open,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= uint32(failures) },
	})
}

// fault notes that the port failed.
func (b *breaker) fault(err error) {
	if b.cfg.Failures == 0 {
		return
	}
	b.troubled = true
	if b.counting == nil {
		b.counting = circuit(b.cfg.Failures, b.cfg.Open)
	}
	current, open := b.counting, b.cfg.Open
	if b.probing != nil {
		current, open = b.probing, b.cfg.Probe
	}
	_, _ = current.Execute(func() (struct{}, error) { return struct{}{}, err })
	if current.State() == gobreaker.StateOpen {
		b.until = time.Now().Add(open)
		b.probing = circuit(1, b.cfg.Probe)
	}
}

// works notes that the port has carried something.
func (b *breaker) works() {
	if b.troubled {
		*b = breaker{cfg: b.cfg}
	}
}

func (b *breaker) state(now time.Time) BreakerState {
	switch {
	case b.probing == nil:
		return BreakerClosed
	case now.Before(b.until):
		return BreakerOpen
	}
	return BreakerHalfOpen
}

// isPortFault tells a port that fails from a device, or a host, that is silent.
func isPortFault(err error) bool {
	silent := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
	return !silent || errors.Is(err, transport.ErrLost)
}

// fault tells the breaker that the port failed.
func (l *Lane) fault(err error) {
	before := l.breaker.state(time.Now())
	l.breaker.fault(err)
	after := l.breaker.state(time.Now())
	if before != BreakerOpen && after == BreakerOpen {
		l.log.Warn("the link's port fails again and again: its breaker is open, and it is tried more seldom",
			"failures", l.cfg.Breaker.Failures, "next", l.breaker.until.Format(time.TimeOnly), "error", err)
	}
	l.note(func(s *Status) { s.Faults++ })
}

// works tells the breaker that the port carries something.
func (l *Lane) works() {
	if l.breaker.troubled {
		l.breaker.works()
		l.note(func(s *Status) { s.Breaker = BreakerClosed })
	}
}
