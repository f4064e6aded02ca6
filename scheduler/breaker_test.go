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
	"github.com/mcp-edge/edge-agent/transport"
)

// port notes when it is opened, and fails as opens says.
type port struct {
	fakeLink
	start  time.Time
	tries  []time.Duration
	opens  func(since time.Duration) error
	during int // Opens under way
}

func (p *port) Open(ctx context.Context) error {
	p.during++
	defer func() { p.during-- }()
	if p.during > 1 {
		panic("two attempts at a time")
	}
	p.tries = append(p.tries, time.Since(p.start))
	if err := p.opens(time.Since(p.start)); err != nil {
		return err
	}
	return p.fakeLink.Open(ctx)
}

func fails(err error) func(time.Duration) error { return func(time.Duration) error { return err } }

func onPort(t *testing.T, cfg scheduler.Config, opens func(time.Duration) error, polls ...scheduler.Poll) (*running, *port) {
	p := &port{start: time.Now(), opens: opens}
	return start(t, p, cfg, polls...), p
}

func TestFiveFaultsInARowOpenTheBreakerFor60SecondsThenThereIsAProbeEach10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := onPort(t, fixed(), fails(transport.Lost(errors.New("no such device"))), poll("a", time.Second, &fakeTask{}))
		l.at(p.start, 50*time.Second)
		s := l.Status()
		fifth := p.tries[4]
		if len(p.tries) != 5 || s.Breaker != scheduler.BreakerOpen || s.Faults != 5 || s.NextOpen.Sub(p.start) != fifth+time.Minute {
			t.Errorf("tried at %v; %+v", p.tries, s)
		}
		l.at(p.start, 3*time.Minute)
		l.end()
		for i, try := range p.tries[5:] {
			if want := fifth + time.Minute + time.Duration(i)*10*time.Second; try != want {
				t.Errorf("probe %d at %v, want %v", i, try, want)
			}
		}
		if len(p.tries) < 14 {
			t.Errorf("tried at %v", p.tries)
		}
	})
}

func TestAnAnswerClosesTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := 2 * time.Minute
		l, p := onPort(t, fixed(), func(since time.Duration) error {
			if since < back {
				return errLost
			}
			return nil
		}, poll("a", 5*time.Second, &fakeTask{took: time.Millisecond}))
		l.at(p.start, 3*time.Minute)
		if s := l.Status(); s.Breaker != scheduler.BreakerClosed || !s.NextOpen.IsZero() || s.State != scheduler.Up {
			t.Errorf("%+v", s)
		}
		// And it counts from the beginning: after one loss, four failures don't open it.
		tries, begun := len(p.tries), time.Since(p.start)
		back = begun + 100*time.Millisecond
		close(p.lost)
		l.at(p.start, begun+time.Minute)
		if s := l.Status(); s.Breaker != scheduler.BreakerClosed || s.State != scheduler.Up {
			t.Errorf("tried at %v; %+v", p.tries[tries:], s)
		}
		l.end()
	})
}

func TestARefusalIsAnAnswerToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusing := &fakeTask{answer: func(time.Duration, int, int) error { return errors.New("illegal function") }}
		l, p := onPort(t, fixed(), func(since time.Duration) error {
			if since < 2*time.Minute {
				return errLost
			}
			return nil
		}, poll("a", 5*time.Second, refusing))
		l.at(p.start, 150*time.Second)
		if s := l.Status(); s.Breaker != scheduler.BreakerClosed || s.State != scheduler.Up {
			t.Errorf("%+v", s)
		}
		l.end()
	})
}

func TestALineThatHasAnsweredIsOpenedAgainAtOnceEachTimeItIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := &fakeTask{took: time.Millisecond}
		l, p := onPort(t, fixed(), fails(nil), poll("a", time.Second, task))
		for i := range 20 {
			l.at(p.start, time.Duration(i+1)*10*time.Second)
			close(p.lost)
			l.at(p.start, time.Duration(i+1)*10*time.Second+510*time.Millisecond)
			if s := l.Status(); s.State != scheduler.Up || s.Breaker != scheduler.BreakerClosed {
				t.Errorf("after loss %d: %+v", i+1, s)
			}
		}
		l.end()
		for i, err := range task.ended {
			if err != nil {
				t.Errorf("round %d: %v", i, err)
			}
		}
	})
}

func TestALineThatHoldsForAMinuteClosesTheBreakerWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := onPort(t, fixed(), func(since time.Duration) error {
			if since < 2*time.Minute {
				return errLost
			}
			return nil
		})
		l.at(p.start, 150*time.Second)
		if s := l.Status(); s.Breaker != scheduler.BreakerHalfOpen || s.State != scheduler.Up {
			t.Errorf("%+v", s)
		}
		l.at(p.start, 4*time.Minute)
		if s := l.Status(); s.Breaker != scheduler.BreakerClosed {
			t.Errorf("%+v", s)
		}
		l.end()
	})
}

func TestALineThatIsLostAgainAndAgainOpensTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := &fakeTask{answer: func(time.Duration, int, int) error { return errLost }}
		l, p := onPort(t, fixed(), fails(nil), poll("a", 100*time.Millisecond, task))
		l.at(p.start, 40*time.Second)
		if s := l.Status(); s.Breaker != scheduler.BreakerOpen || s.State != scheduler.Down || len(p.tries) != 5 {
			t.Errorf("opened at %v; %+v", p.tries, s)
		}
		down := 0
		for _, err := range task.ended {
			if errors.Is(err, scheduler.ErrLinkDown) {
				down++
			}
		}
		if down == 0 {
			t.Errorf("the poll does not know that the link is down: %v", task.ended)
		}
		l.end()
	})
}

func TestNeitherSilenceNorRefusalsOpenTheBreaker(t *testing.T) {
	for _, err := range []error{os.ErrDeadlineExceeded, fmt.Errorf("asking: %w", context.DeadlineExceeded), errors.New("illegal function"), transport.ErrFrame} {
		synctest.Test(t, func(t *testing.T) {
			l, p := onPort(t, fixed(), fails(nil), poll("a", time.Second, &fakeTask{answer: func(time.Duration, int, int) error { return err }}))
			l.at(p.start, 5*time.Minute)
			if s := l.Status(); s.Faults != 0 || s.Breaker != scheduler.BreakerClosed || len(p.tries) != 1 {
				t.Errorf("%v: %+v", err, s)
			}
			l.end()
		})
	}
}

func TestAPeerThatDoesNotAnswerADialIsNoFaultOfThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := onPort(t, fixed(), fails(fmt.Errorf("dial: %w", context.DeadlineExceeded)))
		l.at(p.start, 10*time.Minute)
		if s := l.Status(); s.Faults != 0 || s.Breaker != scheduler.BreakerClosed || len(p.tries) < 20 {
			t.Errorf("%d tries; %+v", len(p.tries), s)
		}
		l.end()
	})
}

func TestNobodyCallingIsNoFaultOfALinkThatWaitsToBeCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := fixed()
		cfg.Passive = true
		l, p := onPort(t, cfg, fails(errLost))
		l.at(p.start, 5*time.Minute)
		if s := l.Status(); s.Faults != 0 || s.Breaker != scheduler.BreakerClosed {
			t.Errorf("%+v", s)
		}
		l.end()
	})
}

func TestALinkThatWaitsToBeCalledTakesNoTurnFromThoseThatDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		shared := scheduler.NewShared(scheduler.SharedConfig{MaxOpening: 1})
		var lanes []*running
		for _, passive := range []bool{true, true, false} {
			cfg, link := fixed(), &slowLink{takes: time.Hour}
			if cfg.Passive = passive; !passive {
				link.takes = time.Second
			}
			lane, err := scheduler.NewLane("line", link, nil, cfg, shared, quiet)
			if err != nil {
				t.Fatal(err)
			}
			lanes = append(lanes, startLane(t, lane))
			synctest.Wait()
		}
		lanes[2].at(begin, 1100*time.Millisecond)
		if s := lanes[2].Status(); s.State != scheduler.Up {
			t.Errorf("%+v", s)
		}
		for _, l := range lanes {
			l.end()
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("it took %v to stop", took)
		}
	})
}

func TestAPermanentErrorIsTriedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := onPort(t, fixed(), fails(transport.Permanent(os.ErrPermission)))
		l.at(p.start, 20*time.Minute)
		l.end()
		for i := 1; i < len(p.tries); i++ {
			if gap := p.tries[i] - p.tries[i-1]; gap < 30*time.Second {
				t.Errorf("%v between attempts", gap)
			}
		}
	})
}

func TestWithoutABreakerALinkIsTriedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := fixed()
		cfg.Breaker.Failures = 0
		l, p := onPort(t, cfg, fails(errLost))
		l.at(p.start, 10*time.Minute)
		if s := l.Status(); s.Breaker != scheduler.BreakerClosed || len(p.tries) < 20 {
			t.Errorf("%d tries; %+v", len(p.tries), s)
		}
		l.end()
	})
}

func TestOnALinkThatIsLostAgainAndAgainPollsReportIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := fixed()
		cfg.Breaker.Failures = 0
		task := &fakeTask{}
		flapping := &flappingLink{}
		begin := time.Now()
		l := start(t, flapping, cfg, poll("a", 100*time.Millisecond, task))
		l.at(begin, 2*time.Minute)
		l.end()
		down := 0
		for _, err := range task.ended {
			if errors.Is(err, scheduler.ErrLinkDown) && errors.Is(err, transport.ErrLost) {
				down++
			}
		}
		if down < 3 || flapping.opened < 4 || flapping.opened > 60 {
			t.Errorf("opened %d times, reported %d times: %v", flapping.opened, down, task.ended)
		}
	})
}

func TestCommandsExpireAndPollsReportOnceWhileTheBreakerIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := &fakeTask{took: time.Millisecond}
		l, p := onPort(t, fixed(), func(since time.Duration) error {
			if since < 3*time.Minute {
				return errLost
			}
			return nil
		}, poll("a", time.Second, task))
		l.at(p.start, time.Minute)
		late := l.submit(&order{device: "a", name: "late", start: p.start}, 3*time.Second)
		patient := l.submit(&order{device: "a", name: "patient", start: p.start}, time.Hour)
		l.at(p.start, time.Minute+3*time.Second)
		late.wants(t, 0, scheduler.ErrExpired)
		if s := l.Status(); s.Queue != 1 || s.Breaker != scheduler.BreakerOpen {
			t.Errorf("%+v", s)
		}
		if len(task.ended) != 1 || !errors.Is(task.ended[0], scheduler.ErrLinkDown) {
			t.Errorf("the poll was told %v", task.ended)
		}
		l.at(p.start, 4*time.Minute)
		patient.wants(t, 1)
		l.end()
	})
}

func TestLinksAreOpenedAFewAtATimeAndAStoppedLaneDoesNotWaitForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		shared := scheduler.NewShared(scheduler.SharedConfig{MaxOpening: 2})
		var lanes []*running
		for range 5 {
			lane, err := scheduler.NewLane("line", &slowLink{takes: 10 * time.Second}, nil, fixed(), shared, quiet)
			if err != nil {
				t.Fatal(err)
			}
			lanes = append(lanes, startLane(t, lane))
			synctest.Wait()
		}
		up := func() (n int) {
			for _, l := range lanes {
				if l.Status().State == scheduler.Up {
					n++
				}
			}
			return n
		}
		lanes[0].at(begin, 5*time.Second)
		if s := shared.Status(); s.Opening != 2 {
			t.Errorf("%+v", s)
		}
		lanes[4].end()
		if time.Since(begin) != 5*time.Second {
			t.Error("a stopped lane has waited for its turn")
		}
		for i, want := range []int{2, 4} {
			lanes[0].at(begin, time.Duration(10*(i+1))*time.Second+time.Millisecond)
			if got := up(); got != want {
				t.Errorf("%d links are up, not %d", got, want)
			}
		}
		if s := shared.Status(); s.Opening != 0 {
			t.Errorf("%+v", s)
		}
		for _, l := range lanes[:4] {
			l.end()
		}
	})
}
