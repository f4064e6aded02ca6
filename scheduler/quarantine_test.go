package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
)

func TestASilentDeviceIsTriedOnceMoreThanItsRetriesThenProbedEverLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := &fakeTask{answer: dies}
		lane := run(t, &fakeLink{}, 10*time.Minute, poll("dead", time.Second, dead))
		if len(dead.ended) < 2 || dead.ended[0] != nil || !errors.Is(dead.ended[1], os.ErrDeadlineExceeded) {
			t.Fatalf("ended with %v", dead.ended)
		}
		if first, next := dead.stepped[1], dead.stepped[4]; next-first != 3*500*time.Millisecond {
			t.Errorf("tries at %v", dead.stepped[:5])
		}
		if n := len(dead.stepped); n < 1+4+8 || n > 1+4+24 {
			t.Errorf("%d tries in ten minutes", n)
		}
		gap := dead.stepped[len(dead.stepped)-1] - dead.stepped[len(dead.stepped)-2]
		if gap < 45*time.Second || gap > 62*time.Second {
			t.Errorf("probes end up %v apart", gap)
		}
		if s := lane.Status(); !s.Devices[0].Silent || s.Timeouts != uint64(len(dead.stepped)-1) {
			t.Errorf("status %+v", s)
		}
	})
}

func TestADeviceThatHasNeverAnsweredIsProbedAndNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		absent := &fakeTask{answer: silent}
		lane := run(t, &fakeLink{}, 9*time.Second, poll("absent", time.Second, absent))
		if n := len(absent.stepped); n < 3 || n > 4 {
			t.Errorf("tried at %v", absent.stepped)
		}
		if s := lane.Status(); s.Retries != 0 || !s.Devices[0].Silent {
			t.Errorf("status %+v", s)
		}
	})
}

func TestADeviceThatAnswersHalfARoundBacksOffLikeASilentOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		half := &fakeTask{steps: 2, took: time.Millisecond, answer: func(_ time.Duration, step, _ int) error {
			if step == 1 {
				return os.ErrDeadlineExceeded
			}
			return nil
		}}
		lane := run(t, &fakeLink{}, 10*time.Minute, poll("half", time.Second, half))
		if s := lane.Status(); s.Timeouts > 30 || !s.Devices[0].Silent {
			t.Errorf("%d time-outs in ten minutes, %+v", s.Timeouts, s.Devices[0])
		}
	})
}

func TestNeighboursOfASilentDeviceKeepTheirPeriods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := &fakeTask{answer: silent}
		var live []*fakeTask
		polls := []scheduler.Poll{poll("dead", time.Second, dead)}
		for i := range 5 {
			task := &fakeTask{took: 20 * time.Millisecond}
			live = append(live, task)
			polls = append(polls, poll(fmt.Sprint("live", i), time.Second, task))
		}
		run(t, &fakeLink{}, 5*time.Minute, polls...)
		for i, task := range live {
			if n := len(task.ended); n < 299 {
				t.Errorf("device %d: %d of 300 rounds", i, n)
			}
		}
	})
}

func TestTheFirstGoodAnswerBringsADeviceBackToItsPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		answer := func(time.Duration, int, int) error {
			if time.Since(start) < 2*time.Minute {
				return os.ErrDeadlineExceeded
			}
			return nil
		}
		one, two := &fakeTask{answer: answer}, &fakeTask{answer: answer}
		lane := run(t, &fakeLink{}, 4*time.Minute, poll("d", time.Second, one), poll("d", time.Second, two))
		for i, task := range []*fakeTask{one, two} {
			good := 0
			for _, err := range task.ended {
				if err == nil {
					good++
				}
			}
			if good < 55 || good > 121 {
				t.Errorf("poll %d: %d good rounds in the two minutes after", i, good)
			}
		}
		if s := lane.Status(); s.Devices[0].Silent || s.Devices[0].Reason != "" {
			t.Errorf("still %+v", s.Devices[0])
		}
	})
}

// unit is a device on a line: it answers after took, if it is not dead and its
// time-out is not over then.
type unit struct {
	start    time.Time
	took     time.Duration
	dead     bool
	drops    func(n int) bool // answers that get lost
	asked    []time.Duration
	timeouts []time.Duration // what it was given, each time
	wasted   time.Duration
	ended    []error
}

func (u *unit) Begin(time.Time) {}

func (u *unit) Step(ctx context.Context, t *scheduler.Turn) (bool, error) {
	t.Sent = true
	u.asked = append(u.asked, time.Since(u.start))
	u.timeouts = append(u.timeouts, t.Timeout)
	lost := u.dead || u.took > t.Timeout || u.drops != nil && u.drops(len(u.asked))
	took := u.took
	if lost {
		took = t.Timeout
		u.wasted += took
	}
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if lost {
		return false, os.ErrDeadlineExceeded
	}
	t.Took = took
	return false, nil
}

func (u *unit) End(err error) func(context.Context) {
	u.ended = append(u.ended, err)
	return nil
}

// adaptive has time-outs that adapt.
func adaptive() scheduler.Config {
	return scheduler.Config{Timeout: time.Second, TimeoutMin: 100 * time.Millisecond, RetryCount: 3, Breaker: scheduler.BreakerConfig{Failures: 5}}
}

// units makes n devices that answer after took, polled once a second.
func units(n int, took time.Duration) (list []*unit, polls []scheduler.Poll) {
	for i := range n {
		list = append(list, &unit{start: time.Now(), took: took})
		polls = append(polls, scheduler.Poll{Device: fmt.Sprintf("u%02d", i), Every: time.Second, Task: list[i]})
	}
	return list, polls
}

func TestOneMissedRoundCostsADeviceOnlyThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(4, 10*time.Millisecond)
		cfg := adaptive()
		cfg.RetryCount = 1
		list[2].drops = func(n int) bool { return n == 6 || n == 7 } // an answer and that to its retry
		l := start(t, &fakeLink{}, cfg, polls...)
		l.at(begin, 19900*time.Millisecond)
		failed := 0
		for _, err := range list[2].ended {
			if err != nil {
				failed++
			}
		}
		if failed != 1 || len(list[2].ended) != 20 {
			t.Errorf("of %d rounds, %d have failed", len(list[2].ended), failed)
		}
		l.end()
	})
}

func TestProbesGrowApartUpToTheirLimitAndAreNotInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		cfg := adaptive()
		cfg.ProbeMax = 40 * time.Second
		a, b := &unit{start: begin, dead: true}, &unit{start: begin, dead: true}
		l := start(t, &fakeLink{}, cfg, scheduler.Poll{Device: "a", Every: time.Second, Task: a}, scheduler.Poll{Device: "b", Every: time.Second, Task: b})
		l.at(begin, time.Hour)
		l.end()
		for _, u := range []*unit{a, b} {
			for i := 1; i < len(u.asked); i++ {
				gap := u.asked[i] - u.asked[i-1]
				most := min(time.Second<<min(i-1, 10), cfg.ProbeMax) + 2*time.Second // its time-out, and the rest of a period
				if least := (most - 2*time.Second) * 8 / 10; gap < least || gap > most {
					t.Errorf("probe %d after %v, want %v to %v", i, gap, least, most)
				}
			}
			if n := len(u.asked); n < 85 || n > 120 {
				t.Errorf("%d probes in an hour", n)
			}
		}
		if len(a.asked) == len(b.asked) && a.asked[50]-b.asked[50] == a.asked[0]-b.asked[0] {
			t.Error("they are probed in step")
		}
	})
}

func TestADeviceThatHasBecomeSlowComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(8, 10*time.Millisecond)
		l := start(t, &fakeLink{}, adaptive(), polls...)
		l.at(begin, time.Minute)
		list[3].took = 450 * time.Millisecond // the line bears half a second
		rounds := len(list[3].ended)
		l.at(begin, 2*time.Minute)
		s := l.Status()
		good := 0
		for _, err := range list[3].ended[rounds:] {
			if err == nil {
				good++
			}
		}
		if good < 40 || s.Devices[3].Silent || s.Devices[3].TimeoutMS < 450 {
			t.Errorf("%d good rounds in a minute; %+v", good, s.Devices[3])
		}
		l.end()
	})
}

func TestADeviceThatIsSlowerThanItsNeighboursIsFoundAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, polls := units(8, 5*time.Millisecond)
		list[5].took = 90 * time.Millisecond
		lane := newLane(t, &fakeLink{}, adaptive(), polls...)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := lane.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if s := lane.Status(); s.Timeouts != 0 {
			t.Errorf("asked %v, given %v", list[5].asked, list[5].timeouts)
		}
	})
}

func TestTimeOutsAdaptWithinTheirBoundsAndDoubleWithEachRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(1, 60*time.Millisecond)
		u := list[0]
		cfg := adaptive()
		l := start(t, &fakeLink{}, cfg, polls...)
		l.at(begin, time.Minute)
		if first := u.timeouts[0]; first != cfg.Timeout {
			t.Errorf("a device that nobody knows is given %v", first)
		}
		steady := u.timeouts[len(u.timeouts)-1]
		if steady < cfg.TimeoutMin || steady > 2*cfg.TimeoutMin {
			t.Errorf("after a minute it is given %v", steady)
		}
		n := len(u.timeouts)
		u.drops = func(i int) bool { return i > n && i <= n+3 }
		l.at(begin, 65*time.Second)
		if got, want := fmt.Sprint(u.timeouts[n:n+4]), fmt.Sprint([]time.Duration{steady, 2 * steady, 4 * steady, 8 * steady}); got != want {
			t.Errorf("its retries are given %v, want %v", got, want)
		}
		for i, timeout := range u.timeouts {
			if timeout < cfg.TimeoutMin || timeout > cfg.Timeout {
				t.Errorf("transaction %d was given %v", i, timeout)
			}
		}
		l.end()
	})
}

func TestDevicesThatAnswerEverySecondTimeTakeTheirShareAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(16, 20*time.Millisecond)
		flaky := list[:6]
		for _, u := range flaky {
			u.drops = func(n int) bool { return n%2 == 0 }
		}
		for _, u := range list[6:9] {
			u.dead = true
		}
		l := start(t, &fakeLink{}, adaptive(), polls...)
		l.at(begin, time.Minute)
		var before time.Duration
		for _, u := range list {
			before += u.wasted
		}
		l.at(begin, 11*time.Minute)
		var wasted time.Duration
		for i, u := range list {
			wasted += u.wasted
			if i >= 9 && len(u.ended) != 11*60 {
				t.Errorf("healthy device %d: %d rounds of %d", i, len(u.ended), 11*60)
			}
		}
		if share := (wasted - before).Seconds() / 600; share > 0.26 {
			t.Errorf("unanswered requests took %.0f %% of the line", share*100)
		}
		for i, u := range flaky {
			if n := len(u.asked); n < 11*60/4 {
				t.Errorf("flaky device %d was asked %d times in 11 minutes", i, n)
			}
		}
		l.end()
	})
}

func TestAMixOfFlakyDevicesDoesNotKeepANewOneFromBeingAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(12, 30*time.Millisecond)
		for i, u := range list[:11] {
			u.drops = func(n int) bool { return (n+i)%3 != 0 }
		}
		l := start(t, &fakeLink{}, adaptive(), polls...)
		l.at(begin, 2*time.Second)
		if len(list[11].asked) == 0 || list[11].ended[0] != nil {
			t.Errorf("asked at %v", list[11].asked)
		}
		l.end()
	})
}

func TestARateBoundsAllThatADeviceIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		limited := func() *fakeTask { return &fakeTask{took: time.Millisecond, steps: 3} }
		one, two, other := limited(), limited(), limited()
		first, second := poll("slow", 500*time.Millisecond, one), poll("slow", 500*time.Millisecond, two)
		cfg := fixed()
		cfg.Rates = map[string]float64{"slow": 4, "never polled": 2}
		l := start(t, &fakeLink{}, cfg, first, second, poll("other", 500*time.Millisecond, other))
		for i := range 10 {
			l.submit(&order{device: "slow", name: fmt.Sprint(i), start: begin}, time.Hour)
		}
		var calls []*order
		for i := range 40 {
			calls = append(calls, &order{device: "never polled", name: fmt.Sprint("call ", i), start: begin})
			l.submit(calls[i], time.Hour)
		}
		l.at(begin, 10*time.Second)
		done := 0
		for _, call := range calls {
			done += len(call.ended)
		}
		if done < 19 || done > 21 {
			t.Errorf("%d calls in ten seconds, at 2 a second", done)
		}
		l.at(begin, 60*time.Second)
		n := len(one.stepped) + len(two.stepped) + 10
		if n > 4*60+1 || n < 4*60-2 {
			t.Errorf("%d transactions in a minute, at most 240 are allowed", n)
		}
		if len(one.ended) < 25 || len(two.ended) < 25 || len(other.ended) < 119 {
			t.Errorf("%d, %d rounds; %d of its neighbour", len(one.ended), len(two.ended), len(other.ended))
		}
		l.end()
	})
}

func TestADeviceThatIsBackIsAskedForAllItsPollsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		one, two := &unit{start: begin, took: time.Millisecond}, &unit{start: begin, took: time.Millisecond}
		_, polls := units(1, time.Millisecond) // a neighbour
		l := start(t, &fakeLink{}, adaptive(), append(
			polls,
			scheduler.Poll{Device: "d", Every: time.Second, Task: one}, scheduler.Poll{Device: "d", Every: 20 * time.Second, Task: two},
		)...)
		l.at(begin, 10*time.Second)
		one.dead, two.dead = true, true
		l.at(begin, 10*time.Minute)
		one.dead, two.dead = false, false
		l.at(begin, 12*time.Minute)
		back := time.Duration(0)
		for _, u := range []*unit{one, two} {
			for _, asked := range u.asked {
				if asked > 10*time.Minute && (back == 0 || asked < back) {
					back = asked
				}
			}
		}
		for i, u := range []*unit{one, two} {
			every := []time.Duration{time.Second, 20 * time.Second}[i]
			rounds := 0
			for _, asked := range u.asked {
				if asked >= back && asked <= back+40*time.Second {
					rounds++
				}
			}
			if rounds < int(40*time.Second/every) {
				t.Errorf("poll %d: %d rounds in the 40 seconds after", i, rounds)
			}
		}
		l.end()
	})
}

func TestACommandThatADeviceDoesNotAnswerDoesNotPutItInQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(2, time.Millisecond)
		l := start(t, &fakeLink{}, adaptive(), polls...)
		l.at(begin, 5*time.Second+100*time.Millisecond)
		o := l.submit(&order{device: "u00", start: begin, answer: script(os.ErrDeadlineExceeded)}, time.Minute)
		l.at(begin, 20*time.Second)
		o.wants(t, 1, scheduler.ErrUnknown)
		if s := l.Status(); s.Devices[0].Silent || s.Devices[0].Timeouts != 1 || len(list[0].ended) < 20 {
			t.Errorf("%d rounds; %+v", len(list[0].ended), s.Devices[0])
		}
		l.end()
	})
}
