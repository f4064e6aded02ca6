package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
)

// long counts how often, in all, these devices were given more than limit, from
// the given number of times on.
func long(list []*unit, from []int, limit time.Duration) (n int) {
	for i, u := range list {
		for _, timeout := range u.timeouts[from[i]:] {
			if timeout > limit {
				n++
			}
		}
	}
	return n
}

// missed is how many periods u was not asked in, from its first on to its last.
func missed(u *unit, phase, every time.Duration) (n int) {
	last := 0
	for i, asked := range u.asked {
		period := int((asked - phase) / every)
		if i > 0 {
			n += period - last - 1
		}
		last = period
	}
	return n
}

func TestASilentDeviceIsHeardOutAtOnceAndThenEverLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(8, 130*time.Millisecond) // which load the line to 65 %
		dead := list[5:]
		for _, u := range dead {
			u.dead = true
		}
		l := start(t, &fakeLink{}, adaptive(), polls...)
		none := make([]int, len(dead))
		for _, c := range []struct {
			at   time.Duration
			want int // of each
		}{{15 * time.Second, 1}, {9 * time.Minute, 1}, {14 * time.Minute, 2}, {65 * time.Minute, 2}, {95 * time.Minute, 3}} {
			l.at(begin, c.at)
			if n := long(dead, none, 400*time.Millisecond); n != c.want*len(dead) {
				t.Errorf("after %v the dead were heard out for half a period %d times, want %d each of %d", c.at, n, c.want, len(dead))
			}
		}
		for i, u := range list[:5] {
			if len(u.ended) != 95*60 {
				t.Errorf("live device %d had %d rounds of %d", i, len(u.ended), 95*60)
			}
		}
		l.end()
	})
}

func TestADeviceThatWasNeverHeardIsHeardOutAtLeisureAndNobodyMissesAPeriod(t *testing.T) {
	for _, took := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 28 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			list, polls := units(16, took)
			live, dead := list[:12], list[12:]
			for _, u := range dead {
				u.dead = true
			}
			l := start(t, &fakeLink{}, adaptive(), polls...)
			l.at(begin, 90*time.Minute)
			for i, u := range live {
				if n := missed(u, time.Duration(i)*time.Second/16, time.Second); n != 0 || len(u.ended) < 90*60-1 {
					t.Errorf("answers take %v: live device %d had %d rounds in an hour and a half and missed %d", took, i, len(u.ended), n)
				}
			}
			if n := long(dead, make([]int, len(dead)), 500*time.Millisecond); n < 3*len(dead) {
				t.Errorf("answers take %v: the dead were heard out for more than half a period %d times", took, n)
			}
			l.end()
		})
	}
}

// Beside a device that is polled very often, what is free of its period is too
// short to tell whether another one is there.
func TestWhereTheTimeOutIsLongerThanAPeriodHearingOutCostsFewRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		fast, dead := &unit{start: begin, took: 5 * time.Millisecond}, &unit{start: begin, dead: true}
		cfg := adaptive() // with a time-out of a second
		l := start(t, &fakeLink{}, cfg,
			scheduler.Poll{Device: "fast", Every: 200 * time.Millisecond, Task: fast},
			scheduler.Poll{Device: "dead", Every: time.Second, Task: dead},
		)
		l.at(begin, 3*time.Hour)
		heardOut := long([]*unit{dead}, []int{0}, 500*time.Millisecond)
		if heardOut < 3 || heardOut > 8 {
			t.Errorf("it was given all its time %d times in three hours", heardOut)
		}
		if n := missed(fast, 0, 200*time.Millisecond); n > 5*heardOut {
			t.Errorf("the live one missed %d rounds, for %d times that the dead one was heard out", n, heardOut)
		}
		l.end()
	})
}

func TestASlowDeviceIsFoundBesideOneThatIsPolledOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		fast := &unit{start: begin, took: 2 * time.Millisecond}
		slow, slower := &unit{start: begin, took: 150 * time.Millisecond}, &unit{start: begin, took: 300 * time.Millisecond}
		cfg := adaptive()
		cfg.Timeout = time.Second
		l := start(t, &fakeLink{}, cfg,
			scheduler.Poll{Device: "fast", Every: 200 * time.Millisecond, Task: fast},
			scheduler.Poll{Device: "slow", Every: 5 * time.Second, Task: slow},
			scheduler.Poll{Device: "slower", Every: 5 * time.Second, Task: slower},
		)
		l.at(begin, 2*time.Minute)
		slow.dead, slower.dead = true, true // a cable
		l.at(begin, 4*time.Minute)
		slow.dead, slower.dead = false, false
		l.at(begin, 6*time.Minute)
		for _, d := range l.Status().Devices {
			if d.Silent {
				t.Errorf("%+v", d)
			}
		}
		for _, u := range []*unit{slow, slower} {
			good := 0
			for _, err := range u.ended {
				if err == nil {
					good++
				}
			}
			if good < 25 {
				t.Errorf("a slow device had %d good rounds", good)
			}
		}
		if n := len(fast.ended); n < 6*60*5*95/100 {
			t.Errorf("the fast one had %d rounds of %d", n, 6*60*5)
		}
		l.end()
	})
}

// All of them may have become slower, as on a radio line: each is found as soon as
// one of them is.
func TestDevicesThatHaveBecomeSlowerAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(4, 10*time.Millisecond)
		l := start(t, &fakeLink{}, adaptive(), polls...)
		l.at(begin, 10*time.Minute)
		for _, u := range list {
			u.took = 200 * time.Millisecond
		}
		l.at(begin, 12*time.Minute)
		for _, d := range l.Status().Devices {
			if d.Silent {
				t.Errorf("two minutes later: %+v", d)
			}
		}
		l.end()
	})
}

// Noise, a cable, a power supply: what silences all devices of a line ends for
// all of them.
func TestTheFirstAnswerOnALineThatWasSilentBringsAllBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(8, 10*time.Millisecond)
		l := start(t, &fakeLink{}, adaptive(), polls...)
		l.at(begin, time.Minute)
		for _, u := range list {
			u.dead = true
		}
		l.at(begin, 20*time.Minute)
		for _, u := range list {
			u.dead = false
		}
		l.at(begin, 21*time.Minute)
		var earliest, latest time.Time
		for _, d := range l.Status().Devices {
			if d.Silent {
				t.Errorf("after a minute: %+v", d)
			}
		}
		for _, u := range list {
			back := begin
			for _, asked := range u.asked {
				if asked > 20*time.Minute {
					back = begin.Add(asked)
					break
				}
			}
			if earliest.IsZero() || back.Before(earliest) {
				earliest = back
			}
			if back.After(latest) {
				latest = back
			}
		}
		if apart := latest.Sub(earliest); apart > 1100*time.Millisecond {
			t.Errorf("the last one was asked %v after the first one answered", apart)
		}
		l.end()
	})
}
