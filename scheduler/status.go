package scheduler

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// State of a link.
type State string

// A link is Opening until its first attempt has ended.
const (
	Opening State = "opening"
	Up      State = "up"
	Down    State = "down"
)

// Status is what an operator sees of a lane. Counters start at 0 with the lane.
type Status struct {
	Link   string    `json:"link"`
	State  State     `json:"state"`
	Reason string    `json:"reason,omitempty"` // why it is not up, in words
	Since  time.Time `json:"since,omitzero"`   // of State

	Rounds       uint64 `json:"rounds"`       // polls done
	Skipped      uint64 `json:"skipped"`      // polls left out because they came too late
	Transactions uint64 `json:"transactions"` // requests made
	Timeouts     uint64 `json:"timeouts"`     // of them, not answered in time
	Retries      uint64 `json:"retries"`      // of them, tried again
	Opens        uint64 `json:"opens"`        // times the link was brought up
	Faults       uint64 `json:"faults"`       // times the port failed: it could not be opened, or was lost
	Commands     uint64 `json:"commands"`     // that have ended

	Breaker  BreakerState `json:"breaker"`
	NextOpen time.Time    `json:"next_open,omitzero"` // when a link that is down is tried next

	// What the last half to whole minute has shown.
	Utilisation           float64  `json:"utilisation"` // how much of the time the line was in use, 0 to 1; with several transactions at a time, of what is allowed
	TransactionsPerSecond float64  `json:"transactions_per_second"`
	Lateness              Lateness `json:"lateness"`
	LeftOut               float64  `json:"left_out"` // the share of rounds of devices that answer for which the line had no time, 0 to 1
	Queue                 int      `json:"queue"`    // rounds that are due and wait, commands included

	// BusySince is when the transaction under way began; zero between them. A
	// transaction that is far older than every time-out shows a lane that is stuck.
	BusySince time.Time `json:"-"`

	Devices []DeviceStatus `json:"devices,omitempty"` // by id
}

// DeviceStatus is what a lane knows of a device that it polls.
type DeviceStatus struct {
	Device   string    `json:"device"`
	Silent   bool      `json:"silent"`             // being probed
	Failures int       `json:"failures,omitempty"` // rounds in a row without an answer
	Reason   string    `json:"reason,omitempty"`   // of the last failure
	NextTry  time.Time `json:"next_try,omitzero"`  // when it is probed next
	LastGood time.Time `json:"last_good,omitzero"` // its last answer
	Timeouts uint64    `json:"timeouts"`
	Garbled  uint64    `json:"garbled"` // bad frames that came while it was asked, such as with a wrong CRC
	Foreign  uint64    `json:"foreign"` // good ones that were not the answer: of another device, to another request, or late

	ResponseMS float64 `json:"response_ms,omitempty"` // what it takes to answer, smoothed
	TimeoutMS  float64 `json:"timeout_ms"`            // what it is given
}

// happened is what an error tells of the line, without where it was met: that is
// for the log. A status begins with what somebody can do something about.
func happened(err error) string {
	for inner := err; inner != nil; inner = lostWithin(inner) {
		err = inner
	}
	return strings.TrimPrefix(err.Error(), transport.ErrLost.Error()+": ")
}

// lostWithin is the error of class ErrLost that err wraps; nil if err says best
// what was lost.
func lostWithin(err error) error {
	wrapped := []error{errors.Unwrap(err)}
	var several interface{ Unwrap() []error }
	if wrapped[0] == nil && errors.As(err, &several) {
		wrapped = several.Unwrap()
	}
	for _, e := range wrapped {
		if errors.Is(e, transport.ErrLost) && e.Error() != transport.ErrLost.Error() {
			return e
		}
	}
	return nil
}

// Ready tells whether the link is open, so that a job would go at its turn, and if
// not, why, in words. It may be called at any time.
func (l *Lane) Ready() (ready bool, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.status
	switch {
	case s.State == Up:
		return true, ""
	case s.Reason == "":
		return false, fmt.Sprintf("its link %s is %s", s.Link, s.State)
	}
	return false, fmt.Sprintf("its link %s is %s: %s", s.Link, s.State, s.Reason)
}

// Status may be called at any time.
func (l *Lane) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	l.meter.show(time.Now(), l.cfg.Transactions, &s)
	for _, r := range l.underway {
		if s.BusySince.IsZero() || r.began.Before(s.BusySince) {
			s.BusySince = r.began
		}
	}
	s.Devices = make([]DeviceStatus, 0, len(l.devices))
	for _, d := range l.devices {
		s.Devices = append(s.Devices, DeviceStatus{
			Device: d.id, Silent: d.silent(), Failures: d.failures, Reason: d.reason,
			NextTry: d.silentUntil, LastGood: d.lastGood, Timeouts: d.timeouts, Garbled: d.garbled, Foreign: d.foreign,
			ResponseMS: milliseconds(d.patience.mean), TimeoutMS: milliseconds(d.patience.within(l.cfg.TimeoutMin, l.cfg.Timeout)),
		})
	}
	slices.SortFunc(s.Devices, func(a, b DeviceStatus) int { return cmp.Compare(a.Device, b.Device) })
	return s
}

func (l *Lane) note(change func(*Status)) {
	l.mu.Lock()
	change(&l.status)
	l.mu.Unlock()
}

// setState returns whether anything changed, so that the same failure again and
// again is logged once.
func (l *Lane) setState(s State, reason string) (changed bool) {
	l.note(func(st *Status) {
		changed = st.State != s || st.Reason != reason
		if st.State != s {
			st.State, st.Since = s, time.Now()
			if s == Up {
				st.Opens++
			}
		}
		st.Reason = reason
	})
	return changed
}
