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
