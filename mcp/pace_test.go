package mcp

import (
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

func TestTheTimeOutIsThatOfRFC6298(t *testing.T) {
	r := roundTrip{first: time.Second, floor: 200 * time.Millisecond}
	ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	for _, c := range []struct{ measured, timeout time.Duration }{
		{0, time.Second}, // nothing is measured yet
		{ms(100), ms(100 + 4*50)},
		{ms(200), ms(112.5 + 4*62.5)},
		{ms(112.5), ms(112.5 + 4*46.875)},
	} {
		if c.measured > 0 {
			r.measured(c.measured)
		}
		if got := r.timeout(); got != c.timeout {
			t.Errorf("after %v: %v instead of %v", c.measured, got, c.timeout)
		}
	}
	for range 50 {
		r.measured(ms(1))
	}
	if got := r.timeout(); got != r.floor {
		t.Errorf("the floor is %v", got)
	}
	for n := range 30 {
		r.backOff()
		if got, want := r.timeout(), min(r.floor<<min(n+1, 20), time.Minute); got != want {
			t.Errorf("doubled %d times: %v instead of %v", n+1, got, want)
		}
	}
	if r.measured(ms(1)); r.timeout() != r.floor {
		t.Errorf("measured anew: %v", r.timeout())
	}
}

func datagramPace() *pace { return newPace(transport.Info{MaxMessage: 1000}) }

func TestOnlyWhatWasSentOnceAndDidNotWaitIsMeasured(t *testing.T) {
	o := new(Outbox)
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	p := datagramPace()
	p.sent(at(0), o, 1, 100, false)
	p.sent(at(10), o, 2, 100, false)
	p.lost(at(20)) // something in front of 2
	p.sent(at(20), o, 1, 100, true)
	p.sent(at(30), o, 3, 100, false)
	p.acknowledged(at(50), o, 3)
	if p.rtt.smoothed != 0 {
		t.Errorf("measured %v", p.rtt.smoothed)
	}
	p.sent(at(60), o, 4, 100, false)
	p.sent(at(70), o, 5, 100, false)
	p.acknowledged(at(100), o, 5)
	if p.rtt.smoothed != 30*time.Millisecond {
		t.Errorf("measured %v", p.rtt.smoothed)
	}
	if len(p.flights) != 0 || p.flying != 0 || p.repeating != 0 {
		t.Errorf("%+v is left over", p)
	}
}

func TestTheWindowGrowsAndIsHalvedOnceInARoundTrip(t *testing.T) {
	o := new(Outbox)
	now := time.Now()
	p := datagramPace()
	number := uint64(0)
	roundTrip := func() (frames int) {
		for p.room(now) > 0 {
			number++
			frames++
			p.sent(now, o, number, 1000, false)
		}
		now = now.Add(100 * time.Millisecond)
		p.acknowledged(now, o, number)
		return frames
	}
	expect := func(what string, want int) {
		t.Helper()
		if got := p.window / 1000; got != want {
			t.Errorf("%s: a window of %d datagrams instead of %d", what, got, want)
		}
	}
	expect("at first", 10)
	roundTrip()
	roundTrip()
	roundTrip()
	expect("after three round trips", 80)
	p.lost(now)
	p.lost(now.Add(50 * time.Millisecond))
	expect("after a loss", 40)
	if n := roundTrip(); n != 40 {
		t.Errorf("%d datagrams in a round trip", n)
	}
	expect("a round trip later", 41)
	for range 9 {
		now = now.Add(time.Second)
		p.lost(now)
	}
	expect("after many losses", 4)
	p.acknowledged(now, o, number)
	expect("without anything sent", 4)
	p.timedOut(now)
	expect("after a time-out", 4)
}

func TestWhatWaitsForAnAcknowledgementDoesNotStopTheOthers(t *testing.T) {
	o := new(Outbox)
	now := time.Now()
	p := datagramPace()
	p.rtt.measured(100 * time.Millisecond)
	for n := range uint64(10) {
		p.sent(now, o, n+1, 1000, false)
	}
	if p.room(now) > 0 || p.more(now) != 100*time.Millisecond {
		t.Errorf("room for %d, more in %v", p.room(now), p.more(now))
	}
	if now = now.Add(100 * time.Millisecond); p.room(now) != 10000 {
		t.Errorf("room for %d a round trip later", p.room(now))
	}
}

func TestOnASerialLineTheTimeOutStartsWhenTheBytesHaveLeft(t *testing.T) {
	now := time.Now()
	p := newPace(transport.Info{CharTime: time.Millisecond})
	p.sent(now, new(Outbox), 1, 4000, false)
	if got := p.overdue(now); got != 9*time.Second {
		t.Errorf("the first time-out is in %v", got)
	}
	if p.room(now) <= 0 {
		t.Error("a serial line has no window")
	}
}
