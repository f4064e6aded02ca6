package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

var errLost = transport.Lost(io.EOF)

func TestACommandGoesAfterTheTransactionUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var polls []scheduler.Poll
		for i := range 10 {
			polls = append(polls, poll(fmt.Sprint(i), 500*time.Millisecond, &fakeTask{took: 100 * time.Millisecond}))
		}
		l := start(t, &fakeLink{}, fixed(), polls...)
		l.at(begin, 10*time.Second+30*time.Millisecond)
		o := l.submit(&order{device: "3", start: begin, took: time.Millisecond}, time.Minute)
		l.at(begin, 20*time.Second)
		l.end()
		o.wants(t, 1)
		if o.stepped[0] > 10*time.Second+100*time.Millisecond {
			t.Errorf("it went at %v", o.stepped[0])
		}
	})
}

func TestCommandsGoByDeadlineAndEveryFifthTurnIsAPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns []string
		begin := time.Now()
		task := &fakeTask{took: 10 * time.Millisecond, order: &turns}
		l := newLane(t, &fakeLink{}, fixed(), poll("poll", 10*time.Millisecond, task))
		r := &running{Lane: l, t: t}
		for i := range 12 {
			name := fmt.Sprint(11 - i)
			r.submit(&order{device: "d", name: name, start: begin, took: 10 * time.Millisecond, order: &turns}, time.Duration(20-i)*time.Second)
		}
		r = startLane(t, l)
		r.at(begin, 10*time.Second)
		r.end()
		want := "[0 1 2 3 poll 4 5 6 7 poll 8 9 10 11 poll poll"
		if got := fmt.Sprint(turns); len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("turns %s, want %s …", got[:min(len(got), 80)], want)
		}
	})
}

func TestACommandIsNotSentOnceItsDeadlineHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := start(t, &fakeLink{}, fixed(), poll("a", time.Minute, &fakeTask{took: 200 * time.Millisecond}))
		l.at(begin, 100*time.Millisecond)
		late := l.submit(&order{device: "a", name: "late", start: begin}, 100*time.Millisecond)
		inTime := l.submit(&order{device: "a", name: "in time", start: begin}, 100*time.Millisecond+1)
		l.at(begin, time.Second)
		past := l.submit(&order{device: "a", name: "past", start: begin}, -time.Second)
		l.at(begin, 2*time.Second)
		l.end()
		late.wants(t, 0, scheduler.ErrExpired)
		past.wants(t, 0, scheduler.ErrExpired)
		inTime.wants(t, 1)
	})
}

// slowLink takes its time to open, and comes to nothing before until.
type slowLink struct {
	fakeLink
	takes time.Duration
	until time.Time
}

func (l *slowLink) Open(ctx context.Context) error {
	select {
	case <-time.After(l.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if time.Now().Before(l.until) {
		return transport.Lost(errors.New("nothing there"))
	}
	return l.fakeLink.Open(ctx)
}

func TestWhileALinkIsDownCommandsExpireInTimeAndTheOthersGoWhenItIsBack(t *testing.T) {
	for _, takes := range []time.Duration{0, 14 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			l := start(t, &slowLink{takes: takes, until: begin.Add(30 * time.Second)}, fixed(), poll("a", time.Second, &fakeTask{}))
			l.at(begin, 4*time.Second)
			late := l.submit(&order{device: "a", name: "late", start: begin}, 3*time.Second)
			patient := l.submit(&order{device: "a", name: "patient", start: begin}, time.Hour)
			l.at(begin, 7*time.Second)
			late.wants(t, 0, scheduler.ErrExpired)
			l.at(begin, 5*time.Minute)
			patient.wants(t, 1)
			l.end()
		})
	}
}

func TestWhatACommandIsToldSaysWhetherItMayHaveBeenCarriedOut(t *testing.T) {
	refusal := errors.New("illegal data address")
	silence := func(n int) []error {
		return append(make([]error, 0, n), []error{os.ErrDeadlineExceeded, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded}[:n]...)
	}
	for name, c := range map[string]struct {
		order order
		fails []error
		steps int
		want  []error
	}{
		"refused":                                {order{}, []error{refusal}, 1, []error{refusal}},
		"silence":                                {order{}, silence(1), 1, []error{scheduler.ErrUnknown, os.ErrDeadlineExceeded}},
		"silence, nothing sent":                  {order{unsent: true}, silence(4), 4, []error{os.ErrDeadlineExceeded}},
		"silence, then well, repeated":           {order{repeat: true}, silence(3), 4, nil},
		"silence, repeated":                      {order{repeat: true}, silence(4), 4, []error{os.ErrDeadlineExceeded}},
		"lost":                                   {order{}, []error{errLost}, 1, []error{scheduler.ErrUnknown, transport.ErrLost}},
		"lost, nothing sent":                     {order{unsent: true}, []error{errLost, errLost, errLost}, 4, nil},
		"lost, repeated":                         {order{repeat: true}, []error{errLost}, 2, nil},
		"lost twice, repeated":                   {order{repeat: true}, []error{errLost, errLost}, 2, []error{transport.ErrLost}},
		"a part answered, then lost":             {order{steps: 2}, []error{nil, errLost}, 2, []error{scheduler.ErrUnknown, transport.ErrLost}},
		"a part answered, then lost, not sent":   {order{steps: 2, unsent: true}, []error{nil, errLost}, 2, []error{scheduler.ErrUnknown, transport.ErrLost}},
		"a part answered, then lost, repeated":   {order{steps: 2, repeat: true}, []error{nil, errLost}, 2, []error{transport.ErrLost}},
		"a part answered, then silence":          {order{steps: 2}, []error{nil, os.ErrDeadlineExceeded}, 2, []error{scheduler.ErrUnknown}},
		"a part answered, then refused":          {order{steps: 2}, []error{nil, refusal}, 2, []error{refusal}},
		"a part answered, then silence, not new": {order{steps: 2, repeat: true}, []error{nil, os.ErrDeadlineExceeded}, 3, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				l := start(t, &fakeLink{}, fixed(), poll("a", time.Second, &fakeTask{}))
				l.at(begin, 10*time.Second)
				o := c.order
				o.device, o.name, o.start, o.took, o.answer = "a", name, begin, time.Millisecond, script(c.fails...)
				l.submit(&o, time.Minute)
				l.at(begin, 90*time.Second)
				o.wants(t, c.steps, c.want...)
				l.end()
			})
		})
	}
}

func TestTheRetryOfACommandLetsAPollGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns []string
		begin := time.Now()
		task := &fakeTask{took: 10 * time.Millisecond, order: &turns}
		l := start(t, &fakeLink{}, fixed(), poll("poll", 100*time.Millisecond, task))
		l.at(begin, 250*time.Millisecond)
		turns = nil
		o := l.submit(&order{device: "poll", name: "o", start: begin, repeat: true, answer: script(os.ErrDeadlineExceeded, os.ErrDeadlineExceeded), order: &turns}, time.Minute)
		l.at(begin, 5*time.Second)
		l.end()
		o.wants(t, 3)
		if got := fmt.Sprint(turns[:5]); got != "[o poll o poll o]" {
			t.Errorf("turns %s", got)
		}
	})
}

func TestACommandAnsweredInPartIsBroughtToItsEndAfterItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := start(t, &fakeLink{}, fixed(), poll("a", time.Second, &fakeTask{}))
		l.at(begin, 500*time.Millisecond)
		notYet := &scheduler.NotYet{Until: begin.Add(20 * time.Second)}
		o := l.submit(&order{device: "a", start: begin, steps: 2, took: time.Millisecond, answer: script(nil, notYet)}, 5*time.Second)
		l.at(begin, 30*time.Second)
		o.wants(t, 3)
		if last := o.stepped[len(o.stepped)-1]; last != 20*time.Second {
			t.Errorf("its second part went at %v", last)
		}
		l.end()
	})
}

func TestACommandThatMustWaitExpiresInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := start(t, &fakeLink{}, fixed())
		o := l.submit(&order{device: "a", start: begin, unsent: true, answer: script(&scheduler.NotYet{Until: begin.Add(time.Minute)})}, 5*time.Second)
		l.at(begin, 5*time.Second)
		o.wants(t, 1, scheduler.ErrExpired)
		l.end()
	})
}

func TestACommandsDeadlineAlsoStopsItsRepetition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := start(t, &slowLink{until: begin}, fixed())
		o := l.submit(&order{device: "a", start: begin, repeat: true, answer: script(os.ErrDeadlineExceeded, os.ErrDeadlineExceeded)}, 300*time.Millisecond)
		l.at(begin, time.Minute)
		l.end()
		o.wants(t, 1, os.ErrDeadlineExceeded) // a device that has never answered is not asked again
		l = start(t, &fakeLink{}, fixed(), poll("a", time.Second, &fakeTask{}))
		l.at(begin, 2*time.Minute)
		o = l.submit(&order{device: "a", start: begin, repeat: true, answer: script(os.ErrDeadlineExceeded, os.ErrDeadlineExceeded)}, 300*time.Millisecond)
		l.at(begin, 3*time.Minute)
		l.end()
		o.wants(t, 1, scheduler.ErrExpired)
	})
}

// never lets nothing go from that step on.
func never(from int) func(step, try int) error {
	return func(step, _ int) error {
		if step < from {
			return nil
		}
		return &scheduler.NotYet{Until: time.Now().Add(time.Hour)}
	}
}

func TestWhatBecomesOfCommandsWhenTheLaneIsStopped(t *testing.T) {
	forever := 100 * time.Second
	for name, c := range map[string]struct {
		order order
		steps int
		want  []error
	}{
		"answered within the grace": {order{took: time.Second}, 1, nil},
		"answered in part":          {order{took: time.Second, steps: 3}, 3, nil},
		"never answered":            {order{took: forever}, 1, []error{scheduler.ErrUnknown, scheduler.ErrStopped}},
		"never answered, repeated":  {order{took: forever, repeat: true}, 1, []error{scheduler.ErrStopped}},
		"not sent":                  {order{took: forever, unsent: true}, 1, []error{scheduler.ErrStopped}},
		"answered in part, then too late": {
			order{took: time.Second, steps: 2, answer: never(1)},
			2,
			[]error{scheduler.ErrUnknown, scheduler.ErrStopped},
		},
		"must wait": {
			order{took: time.Second, unsent: true, answer: never(0)},
			1,
			[]error{scheduler.ErrStopped},
		},
	} {
		for _, transactions := range []int{1, 4} {
			t.Run(fmt.Sprint(name, " ", transactions), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					begin := time.Now()
					cfg := fixed()
					cfg.Transactions = transactions
					l := start(t, &fakeLink{}, cfg, poll("a", time.Hour, &fakeTask{}))
					l.at(begin, 10*time.Second)
					o := c.order
					o.device, o.name, o.start = "a", name, begin
					l.submit(&o, time.Hour)
					l.at(begin, 10*time.Second+500*time.Millisecond)
					var waiting *order
					if transactions == 1 && name != "must wait" {
						waiting = l.submit(&order{device: "a", name: "waiting", start: begin}, time.Hour)
					}
					l.stop()
					if err := <-l.done; err != nil {
						t.Error(err)
					}
					if waiting != nil {
						waiting.wants(t, 0, scheduler.ErrStopped)
					}
					if o.step == 1 && len(o.stepped) > c.steps {
						o.stepped = o.stepped[:c.steps] // it was asked once more
					}
					o.wants(t, c.steps, c.want...)
					if took := time.Since(begin) - 10*time.Second; took > 6*time.Second {
						t.Errorf("it took %v to stop", took)
					}
				})
			})
		}
	}
}

func TestALaneTakesABoundedNumberOfCommandsAndNoneAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		link := &slowLink{takes: time.Hour}
		lane := newLane(t, link, fixed())
		var orders []*order
		submit := func() error {
			orders = append(orders, &order{device: "a"})
			return lane.Submit(scheduler.Job{Device: "a", Task: orders[len(orders)-1], Deadline: time.Now().Add(time.Minute)})
		}
		for range 256 {
			if err := submit(); err != nil {
				t.Fatal(err)
			}
		}
		if err := submit(); !errors.Is(err, scheduler.ErrBusy) {
			t.Error(err)
		}
		l := startLane(t, lane)
		l.end()
		if err := submit(); !errors.Is(err, scheduler.ErrStopped) {
			t.Error(err)
		}
		for i, o := range orders {
			if i < 256 {
				o.wants(t, 0, scheduler.ErrStopped)
			} else if o.begun+len(o.ended) != 0 {
				t.Error("a command that was not taken was told something")
			}
		}
	})
}

func TestACommandTowardASilentDeviceBringsItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		dead := true
		task := &fakeTask{answer: func(time.Duration, int, int) error {
			if dead {
				return os.ErrDeadlineExceeded
			}
			return nil
		}}
		l := start(t, &fakeLink{}, fixed(), poll("a", time.Second, task), poll("b", time.Second, &fakeTask{}))
		l.at(begin, 10*time.Minute)
		dead = false
		l.at(begin, 10*time.Minute+time.Millisecond)
		rounds := len(task.stepped)
		o := l.submit(&order{device: "a", start: begin, took: time.Millisecond}, time.Minute)
		l.at(begin, 10*time.Minute+4*time.Second)
		o.wants(t, 1)
		if got := len(task.stepped) - rounds; got < 3 {
			t.Errorf("%d rounds in the four seconds after", got)
		}
		l.end()
	})
}

// counted counts what it is told.
type counted struct{ begun, ended atomic.Int32 }

func (c *counted) Begin(time.Time) { c.begun.Add(1) }
func (c *counted) End(error) func(context.Context) {
	c.ended.Add(1)
	return nil
}

func (c *counted) Step(context.Context, *scheduler.Turn) (bool, error) { return false, nil }

func TestCommandsMayComeFromEverywhereUntilTheLastMoment(t *testing.T) {
	for _, transactions := range []int{1, 4} {
		cfg := fixed()
		cfg.Transactions = transactions
		l := start(t, &fakeLink{}, cfg, scheduler.Poll{Device: "a", Every: 100 * time.Microsecond, Task: &counted{}})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				var taken []*counted
				for {
					c := &counted{}
					err := l.Submit(scheduler.Job{Device: "a", Task: c, Deadline: time.Now().Add(time.Minute)})
					if errors.Is(err, scheduler.ErrStopped) {
						break
					}
					switch {
					case err != nil:
						<-time.After(100 * time.Microsecond)
					case len(taken) == 500:
						l.stop()
						fallthrough
					default:
						taken = append(taken, c)
					}
					_ = l.Status()
				}
				<-l.done
				l.done <- nil
				for _, c := range taken {
					if c.begun.Load() != 1 || c.ended.Load() != 1 {
						t.Errorf("begun %d times, ended %d times", c.begun.Load(), c.ended.Load())
					}
				}
			})
		}
		group.Wait()
		l.end()
	}
}
