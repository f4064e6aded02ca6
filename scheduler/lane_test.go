package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

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
		a := &fakeTask{took: 5 * time.Second, order: &order}
		b := &fakeTask{took: 5 * time.Second, order: &order}
		run(t, &fakeLink{}, time.Minute, poll("dead", 10*time.Second, dead), poll("a", 10*time.Second, a), poll("b", 10*time.Second, b))
		want := "[dead a b dead a dead b dead a dead b"
		if got := fmt.Sprint(order); len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("order %s, want %s …", got, want)
		}
	})
}

func TestAnOutageIsReportedOnceByEachPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := &fakeTask{}
		link := &fakeLink{}
		for range 4 {
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

func TestALineThatCanNotKeepUpSaysHowMuchItLeavesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, polls := units(4, 500*time.Millisecond) // twice what the line has time for
		l := start(t, &fakeLink{}, adaptive(), polls...)
		l.at(begin, 2*time.Minute)
		if s := l.Status(); s.LeftOut < 0.4 || s.LeftOut > 0.6 {
			t.Errorf("%.2f of the rounds were left out, want half of them", s.LeftOut)
		}
		l.end()
	})
}
