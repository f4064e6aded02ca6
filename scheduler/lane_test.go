package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// fakeLink opens as its script says; once the script is used up, always.
type fakeLink struct {
	script []error
	opened int
	closed int
	lost   chan struct{}
}

var _ scheduler.Link = (*fakeLink)(nil)

func (l *fakeLink) Open(context.Context) error {
	l.opened++
	l.lost = make(chan struct{})
	if len(l.script) == 0 {
		return nil
	}
	err := l.script[0]
	l.script = l.script[1:]
	return err
}
func (l *fakeLink) Lost() <-chan struct{} { return l.lost }
func (l *fakeLink) Close() error          { l.closed++; return nil }

// fakeTask takes a fixed time for each transaction and fails as its script says.
type fakeTask struct {
	start  time.Time // of the test
	took   time.Duration
	steps  int
	answer func(due time.Duration, step, try int) error

	due      time.Duration
	step     int
	try      int
	begun    []time.Duration
	stepped  []time.Duration
	ended    []error
	order    *[]string
	name     string
	overlaps *int // transactions under way on the line
}

var _ scheduler.Task = (*fakeTask)(nil)

func (f *fakeTask) Begin(due time.Time) {
	f.due, f.step, f.try = due.Sub(f.start), 0, 0
	f.begun = append(f.begun, f.due)
}

func (f *fakeTask) Step(ctx context.Context) (bool, error) {
	f.stepped = append(f.stepped, time.Since(f.start))
	if f.order != nil {
		*f.order = append(*f.order, f.name)
	}
	var err error
	if f.answer != nil {
		err = f.answer(f.due, f.step, f.try)
	}
	f.try++
	if errors.Is(err, os.ErrDeadlineExceeded) {
		<-ctx.Done()
		return false, err
	}
	if f.overlaps != nil {
		*f.overlaps++
		if *f.overlaps > 1 {
			panic("two transactions on one line at a time")
		}
		defer func() { *f.overlaps-- }()
	}
	<-time.After(f.took) // the transaction's time on the wire
	if err != nil {
		return false, err
	}
	f.step++
	f.try = 0
	return f.step < f.steps, nil
}

func (f *fakeTask) End(_ context.Context, err error) { f.ended = append(f.ended, err) }

// run works the lane for d of the bubble's time and then stops it.
func run(t *testing.T, link scheduler.Link, d time.Duration, polls ...scheduler.Poll) *scheduler.Lane {
	t.Helper()
	lane, err := scheduler.NewLane("line", link, polls, scheduler.Config{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := lane.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return lane
}

func poll(device string, every time.Duration, task *fakeTask) scheduler.Poll {
	task.start, task.name = time.Now(), device
	if task.steps == 0 {
		task.steps = 1
	}
	return scheduler.Poll{Device: device, Name: "p", Every: every, Timeout: 500 * time.Millisecond, Retries: 3, Task: task}
}

func silent(time.Duration, int, int) error { return os.ErrDeadlineExceeded }

// dies answers its first round and never again.
func dies(due time.Duration, _, _ int) error {
	if due == 0 {
		return nil
	}
	return os.ErrDeadlineExceeded
}

func TestPollsKeepTheirPhaseHoweverLongATransactionTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := &fakeTask{took: 130 * time.Millisecond}
		run(t, &fakeLink{}, 9900*time.Millisecond, poll("a", time.Second, task))
		for i, at := range task.stepped {
			if want := time.Duration(i) * time.Second; at != want {
				t.Errorf("round %d at %v, want %v", i, at, want)
			}
		}
		if len(task.stepped) != 10 {
			t.Errorf("%d rounds in ten seconds", len(task.stepped))
		}
	})
}

func TestPollsOfOneLineAreSpreadOverTheirPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := []*fakeTask{{}, {}, {}, {}}
		var polls []scheduler.Poll
		for i, task := range tasks {
			polls = append(polls, poll(fmt.Sprint(i), time.Second, task))
		}
		run(t, &fakeLink{}, 5*time.Second, polls...)
		for i, task := range tasks {
			if want := time.Duration(i) * 250 * time.Millisecond; task.begun[0] != want {
				t.Errorf("poll %d begins at %v, want %v", i, task.begun[0], want)
			}
		}
	})
}

func TestARoundOvertakenByItsNextIsSkippedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := &fakeTask{took: 2500 * time.Millisecond}
		p := poll("a", time.Second, task)
		p.Timeout = 5 * time.Second
		lane := run(t, &fakeLink{}, 9900*time.Millisecond, p)
		want := []time.Duration{0, 2 * time.Second, 5 * time.Second, 7 * time.Second}
		if fmt.Sprint(task.begun) != fmt.Sprint(want) {
			t.Errorf("rounds of %v, want %v", task.begun, want)
		}
		if s := lane.Status(); s.Skipped < 4 {
			t.Errorf("%d skipped", s.Skipped)
		}
	})
}

func TestTheEarliestDeadlineGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		slow := &fakeTask{took: 300 * time.Millisecond, order: &order}
		long := &fakeTask{took: 10 * time.Millisecond, order: &order}
		short := &fakeTask{took: 10 * time.Millisecond, order: &order}
		polls := []scheduler.Poll{
			poll("slow", 10*time.Second, slow), poll("long", 60*time.Millisecond*3, long), poll("short", 30*time.Millisecond*3, short),
		}
		run(t, &fakeLink{}, 400*time.Millisecond, polls...)
		if len(order) < 3 || order[0] != "slow" || order[1] != "short" {
			t.Errorf("order %v", order)
		}
	})
}

func TestARetryWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		dead := &fakeTask{answer: dies, order: &order}
		a := &fakeTask{took: time.Millisecond, order: &order}
		b := &fakeTask{took: time.Millisecond, order: &order}
		run(t, &fakeLink{}, 3600*time.Millisecond, poll("dead", time.Second, dead), poll("a", time.Second, a), poll("b", time.Second, b))
		want := "[dead a b dead a dead b dead a dead b"
		if got := fmt.Sprint(order); len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("order %s, want %s …", got, want)
		}
	})
}

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

func TestAnOutageIsReportedOnceByEachPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := &fakeTask{}
		link := &fakeLink{}
		for range 12 {
			link.script = append(link.script, transport.Lost(errors.New("no such device")))
		}
		run(t, link, 3*time.Minute, poll("a", time.Second, task))
		down, good := 0, 0
		for _, err := range task.ended {
			switch {
			case errors.Is(err, scheduler.ErrLinkDown):
				down++
			case err == nil:
				good++
			}
		}
		if down != 1 || good < 20 {
			t.Errorf("%d reports of the outage, %d good rounds after", down, good)
		}
	})
}

func TestALostLineIsOpenedAgainAndTheStepRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := 0
		task := &fakeTask{answer: func(due time.Duration, _, _ int) error {
			if due == 3*time.Second && lost == 0 {
				lost++
				return transport.Lost(io.EOF)
			}
			return nil
		}}
		link := &fakeLink{}
		run(t, link, 9900*time.Millisecond, poll("a", time.Second, task))
		if link.opened != 2 || link.closed != 2 {
			t.Errorf("opened %d times, closed %d times", link.opened, link.closed)
		}
		if len(task.ended) != 10 {
			t.Errorf("%d rounds of 10", len(task.ended))
		}
		for i, err := range task.ended {
			if err != nil {
				t.Errorf("round %d: %v", i, err)
			}
		}
	})
}

func TestALineThatIsLostByItselfIsOpenedAgainWithoutABusyLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		link := &flappingLink{}
		run(t, link, time.Minute)
		if link.opened < 3 || link.opened > 60 {
			t.Errorf("opened %d times in a minute", link.opened)
		}
	})
}

// flappingLink is lost as soon as it is open.
type flappingLink struct{ fakeLink }

func (l *flappingLink) Open(ctx context.Context) error {
	err := l.fakeLink.Open(ctx)
	close(l.lost)
	return err
}

func TestARequestThatMustWaitLetsOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		guarded := &fakeTask{answer: func(time.Duration, int, int) error {
			if until := start.Add(700 * time.Millisecond); time.Now().Before(until) {
				return &scheduler.NotYet{Until: until}
			}
			return nil
		}}
		other := &fakeTask{took: time.Millisecond}
		run(t, &fakeLink{}, time.Second, poll("guarded", 2*time.Second, guarded), poll("other", 100*time.Millisecond, other))
		if len(other.ended) < 9 {
			t.Errorf("the other device got %d rounds", len(other.ended))
		}
		if len(guarded.ended) != 1 || guarded.ended[0] != nil || guarded.stepped[len(guarded.stepped)-1] != 700*time.Millisecond {
			t.Errorf("the guarded one: stepped at %v, ended %v", guarded.stepped, guarded.ended)
		}
	})
}

func TestARoundUnderWayIsFinishedWhenTheLaneIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := &fakeTask{took: 200 * time.Millisecond, steps: 3}
		run(t, &fakeLink{}, 300*time.Millisecond, poll("a", time.Minute, task))
		if len(task.ended) != 1 || task.ended[0] != nil || task.step != 3 {
			t.Errorf("%d of 3 steps, ended with %v", task.step, task.ended)
		}
	})
}

func TestAnyMixOfDevicesHoldsTheLineOneAtATimeAndEveryRoundEnds(t *testing.T) {
	type mix struct{ failing, seed, took, steps, every int }
	rapid.Check(t, func(rt *rapid.T) {
		mixes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) mix {
			return mix{
				failing: rapid.IntRange(0, 9).Draw(t, "failing"), // of ten tries
				seed:    rapid.IntRange(0, 9).Draw(t, "seed"),
				took:    rapid.IntRange(1, 50).Draw(t, "took"),
				steps:   rapid.IntRange(1, 3).Draw(t, "steps"),
				every:   rapid.IntRange(50, 2000).Draw(t, "every"),
			}
		}), 1, 12).Draw(rt, "polls")
		var problems []string
		synctest.Test(t, func(t *testing.T) {
			var overlaps int
			var tasks []*fakeTask
			var polls []scheduler.Poll
			for i, m := range mixes {
				task := &fakeTask{
					overlaps: &overlaps, took: time.Duration(m.took) * time.Millisecond, steps: m.steps,
					answer: func(due time.Duration, step, try int) error {
						if (m.seed+int(due/time.Millisecond)+step+try)%10 < m.failing {
							return os.ErrDeadlineExceeded
						}
						return nil
					},
				}
				tasks = append(tasks, task)
				polls = append(polls, poll(fmt.Sprint("d", i/2), time.Duration(m.every)*time.Millisecond, task))
			}
			run(t, &fakeLink{}, 30*time.Second, polls...)
			for i, task := range tasks {
				problems = append(problems, task.check(i, polls[i].Every)...)
			}
		})
		if len(problems) > 0 {
			rt.Fatal(problems)
		}
	})
}

// check holds what is true of every task after a run.
func (f *fakeTask) check(i int, every time.Duration) (problems []string) {
	if len(f.begun) != len(f.ended) {
		problems = append(problems, fmt.Sprintf("poll %d: begun %d times, ended %d times", i, len(f.begun), len(f.ended)))
	}
	for n := 1; n < len(f.begun); n++ {
		if gap := f.begun[n] - f.begun[n-1]; gap <= 0 || gap%every != 0 {
			problems = append(problems, fmt.Sprintf("poll %d: %v between rounds of a period of %v", i, gap, every))
		}
	}
	if len(f.begun) == 0 {
		problems = append(problems, fmt.Sprintf("poll %d starved", i))
	}
	return problems
}
