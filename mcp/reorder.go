package mcp

import (
	"bytes"
	"slices"
	"time"
)

// early is a PUBLISH that has come before its turn. It stands for the numbers
// behind previous, up to last.
type early struct {
	previous, last uint64
	payload        []byte
	size           window

	// The hole in front of it, if there is one:
	since time.Time // is known
	asked time.Time // what is missing was asked for last
	times int       // it was asked for
}

// reorder keeps what comes early on one channel of a link that loses frames,
// by number. Together they are within the receiver's window, and no more than
// maxEarly.
type reorder []early

// maxEarly bounds the PUBLISH frames that wait for their turn in one session,
// so that a peer that sends them backwards can't make keeping them dear.
const maxEarly = 1024

// keep takes a copy of p. It says false if its records are there already.
func (r *reorder) keep(p *Publish, now time.Time) bool {
	i, _ := slices.BinarySearchFunc(*r, p.Previous, func(e early, previous uint64) int {
		return compare(e.previous, previous)
	})
	for _, e := range (*r)[max(i-1, 0):min(i+1, len(*r))] {
		if e.previous <= p.Previous && p.Last() <= e.last {
			return false
		}
	}
	e := early{
		previous: p.Previous, last: p.Last(), payload: bytes.Clone(p.payload),
		size: window{p.Len(), p.Bytes()}, since: now,
	}
	if i < len(*r) { // it lies in the hole in front of the next one
		next := &(*r)[i]
		e.since, e.asked, e.times = next.since, next.asked, next.times
	}
	*r = slices.Insert(*r, i, e)
	return true
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// next takes out what fits behind received, if it is there.
func (r *reorder) next(received uint64) (early, bool) {
	if len(*r) == 0 || (*r)[0].previous > received {
		return early{}, false
	}
	first := (*r)[0]
	*r = slices.Delete(*r, 0, 1)
	if len(*r) == 0 {
		*r = nil
	}
	return first, true
}

// holes calls ask for each hole that is due to be asked for, up to maxMissing of
// them, and returns when the next one will be. A hole is given patience, since
// it may close by itself, and again after the time-out.
func (r reorder) holes(received uint64, now time.Time, patience, timeout time.Duration, ask func(span)) time.Duration {
	next, asked := resendMax, 0
	for i := range r {
		e := &r[i]
		if e.previous > received && asked < maxMissing {
			due := e.since.Add(patience)
			if e.times > 0 {
				due = e.asked.Add(timeout)
			}
			if wait := due.Sub(now); wait > 0 {
				next = min(next, wait)
			} else {
				e.asked = now
				e.times++
				asked++
				next = min(next, timeout)
				ask(span{received + 1, e.previous})
			}
		}
		received = max(received, e.last)
	}
	return next
}

// overtaking learns how long to wait for what others have overtaken before
// asking for it. On a link that keeps the order, or nearly, that is next to
// nothing; each time that something was asked for and then came twice, it was
// too short.
type overtaking struct {
	patience time.Duration
	asked    span // last
	answer   roundTrip
}

const (
	minPatience = time.Millisecond
	maxPatience = 500 * time.Millisecond
)

// newOvertaking is for a link where frames may overtake each other, or not.
func newOvertaking(ordered bool) *overtaking {
	if ordered {
		return &overtaking{answer: roundTrip{first: holeRepeat, floor: holeRepeat}}
	}
	return &overtaking{patience: minPatience, answer: roundTrip{first: holeRepeat, floor: 20 * minPatience}}
}

// ask notes that s is asked for. Patience shrinks a little each time: with one
// repetition in ten too early, it stays.
func (o *overtaking) ask(s span) {
	o.asked = s
	if o.patience > 0 {
		o.patience = max(o.patience-o.patience/16, minPatience)
	}
}

// twice notes that number has come a second time.
func (o *overtaking) twice(number uint64) {
	if o.patience > 0 && o.asked.from <= number && number <= o.asked.to {
		o.patience = min(2*o.patience, maxPatience)
	}
}

// timeout is how long an answer may take before what is missing is asked for
// again.
func (o *overtaking) timeout() time.Duration { return min(o.answer.timeout(), maxHoleRepeat) }

// closed notes that the hole in front of e is no more.
func (o *overtaking) closed(e *early, now time.Time) {
	if e.times == 1 {
		o.answer.measured(now.Sub(e.asked))
	}
}
