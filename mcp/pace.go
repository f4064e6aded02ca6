package mcp

import (
	"math"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// roundTrip estimates how long to wait for an answer, as RFC 6298 does for TCP.
// What it measures includes the time that the peer takes to commit.
type roundTrip struct {
	first     time.Duration // time-out before anything was measured
	floor     time.Duration // a time-out is never shorter
	smoothed  time.Duration // SRTT; 0: nothing was measured
	variation time.Duration // RTTVAR
	doubled   int           // how often the time-out was doubled since the last measurement
}

// measured takes the time from a frame to its answer, which must be the answer
// to its first sending (Karn's rule, RFC 6298, section 3).
func (r *roundTrip) measured(d time.Duration) {
	r.doubled = 0
	if r.smoothed == 0 {
		r.smoothed, r.variation = max(d, 1), d/2
		return
	}
	r.variation += (max(r.smoothed-d, d-r.smoothed) - r.variation) / 4
	r.smoothed = max(r.smoothed+(d-r.smoothed)/8, 1)
}

// timeout is how long to wait now.
func (r *roundTrip) timeout() time.Duration {
	d := r.first
	if r.smoothed > 0 {
		d = max(r.smoothed+4*r.variation, r.floor)
	}
	for range r.doubled {
		d = min(2*d, resendMax)
	}
	return d
}

// backOff doubles the time-out, after one has passed in vain.
func (r *roundTrip) backOff() { r.doubled = min(r.doubled+1, 20) }

// progress takes back what backOff did, though nothing could be measured: while
// much is lost, nearly every acknowledgement has waited for a repetition. Where
// it never could, the peer may be slower than the first time-out, so only a step.
func (r *roundTrip) progress() {
	if r.smoothed > 0 {
		r.doubled = 0
	}
	r.doubled = max(r.doubled-1, 0)
}

// pace says how much may be sent, and when to send again, on a link that loses
// frames. Its window of congestion is what TCP's is (RFC 5681): it doubles in a
// round trip until the first loss, is halved by a loss, at most once in a round
// trip, and then grows by a datagram in a round trip.
//
// The window bounds what was sent in the last round trip, not all that waits
// for an acknowledgement: acknowledgements are cumulative, and one lost frame
// must not stop the others, which the receiver keeps until it has come. The
// receiver's window still holds for all of it.
//
// The session's mu guards it.
type pace struct {
	rtt      roundTrip
	charTime time.Duration // on a serial line

	datagram  int // the largest one, bytes; 0 on a serial line
	window    int // bytes
	threshold int // below it the window doubles
	halved    time.Time

	flights   []flight  // not acknowledged, in the order of sending
	landed    int       // of them, so many were sent more than a round trip ago
	flying    int       // bytes of the others
	repeating int       // of flights, so many are repetitions
	since     time.Time // the time-out runs from here
}

// flight is a PUBLISH that was sent and not acknowledged.
type flight struct {
	outbox   *Outbox
	last     uint64
	size     int
	at       time.Time // when it had left
	repeated bool      // part of it was sent before
	held     bool      // its acknowledgement waits for a repetition
}

const (
	initialRoundTrip = 333 * time.Millisecond // RFC 9002, section 6.2.2

	// The window's bounds, in datagrams.
	initialWindow = 10      // RFC 6928, section 2
	smallWindow   = 4       // RFC 3390: with fewer, a loss hardly ever shows by what comes behind it
	largeWindow   = 1 << 14 // beyond any receiver's window
)

// newPace is for a link as info describes it. A serial line has one frame on its
// way at a time, so there it is the time-out alone that counts.
func newPace(info transport.Info) *pace {
	p := &pace{charTime: info.CharTime, datagram: info.MaxMessage, threshold: math.MaxInt}
	p.rtt = roundTrip{first: resendFirst, floor: resendFloor}
	p.window = initialWindow * p.datagram
	if p.datagram == 0 {
		p.rtt.first, p.window = resendFirstSerial, math.MaxInt
	}
	return p
}

// begin forgets what is on its way: a peer has introduced itself.
func (p *pace) begin(now time.Time) {
	p.flights, p.landed, p.flying, p.repeating = nil, 0, 0, 0
	p.since = now
}

// room is how many bytes may be sent now.
func (p *pace) room(now time.Time) int {
	for p.landed < len(p.flights) && now.Sub(p.flights[p.landed].at) >= p.roundTrip() {
		p.flying -= p.flights[p.landed].size
		p.landed++
	}
	return p.window - p.flying
}

// roundTrip is how long a frame and its answer take on average.
func (p *pace) roundTrip() time.Duration {
	if p.rtt.smoothed > 0 {
		return p.rtt.smoothed
	}
	return initialRoundTrip
}

// more says when room will be larger, if nothing is acknowledged until then.
func (p *pace) more(now time.Time) time.Duration {
	if p.landed == len(p.flights) {
		return resendMax
	}
	return p.flights[p.landed].at.Add(p.roundTrip()).Sub(now)
}

// sent notes a PUBLISH of o with the records up to last.
func (p *pace) sent(now time.Time, o *Outbox, last uint64, size int, repeated bool) {
	left := now.Add(time.Duration(size) * p.charTime)
	if len(p.flights) == 0 || repeated {
		p.since = left
	}
	if repeated {
		p.repeating++
		p.hold()
	}
	p.flights = append(p.flights, flight{
		outbox: o, last: last, size: size, at: left,
		repeated: repeated, held: p.repeating > 0,
	})
	p.flying += size
}

// hold keeps all that is on its way from being measured.
func (p *pace) hold() {
	for i := range p.flights {
		p.flights[i].held = true
	}
}

// acknowledged learns that all of o up to number is safe.
func (p *pace) acknowledged(now time.Time, o *Outbox, number uint64) {
	busy := p.flying >= p.window/2 // else the window is not what holds the sender back
	size, kept, landed := 0, p.flights[:0], 0
	sample := time.Duration(-1)
	for i, f := range p.flights {
		if f.outbox != o || f.last > number {
			if i < p.landed {
				landed++
			}
			kept = append(kept, f)
			continue
		}
		size += f.size
		if i >= p.landed {
			p.flying -= f.size
		}
		if f.repeated {
			p.repeating--
		}
		if !f.held {
			sample = max(now.Sub(f.at), 0) // the latest one: the others waited for company
		}
	}
	if size == 0 {
		return
	}
	clear(p.flights[len(kept):])
	p.flights, p.landed = kept, landed
	p.since = now
	p.rtt.progress()
	if sample >= 0 {
		p.rtt.measured(sample)
	}
	if busy {
		p.grow(size)
	}
}

func (p *pace) grow(acknowledged int) {
	switch {
	case p.datagram == 0:
		return
	case p.window < p.threshold:
		p.window += acknowledged
	default:
		p.window += int(max(int64(p.datagram)*int64(acknowledged)/int64(p.window), 1))
	}
	p.window = min(p.window, largeWindow*p.datagram)
}

// lost learns that something did not arrive, though something behind it did.
func (p *pace) lost(now time.Time) {
	p.hold()
	if p.datagram == 0 || now.Sub(p.halved) < p.roundTrip() {
		return
	}
	p.halved = now
	p.threshold = max(p.window/2, smallWindow*p.datagram)
	p.window = p.threshold
}

// overdue says how long it is until what was sent must be sent again.
func (p *pace) overdue(now time.Time) time.Duration {
	return p.since.Add(p.rtt.timeout()).Sub(now)
}

// timedOut starts over: nothing that was sent is expected any more.
func (p *pace) timedOut(now time.Time) {
	p.rtt.backOff()
	if p.datagram > 0 {
		p.threshold = max(p.window/2, smallWindow*p.datagram)
		p.window = smallWindow * p.datagram
	}
	clear(p.flights)
	p.flights, p.landed, p.flying, p.repeating = p.flights[:0], 0, 0, 0
	p.since = now
}

// forget drops what was noted of o, which begins anew.
func (p *pace) forget(o *Outbox) {
	p.flights = slices.DeleteFunc(p.flights, func(f flight) bool { return f.outbox == o })
	p.landed, p.flying, p.repeating = 0, 0, 0
	for _, f := range p.flights {
		p.flying += f.size
		if f.repeated {
			p.repeating++
		}
	}
}
