package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// pipe counts the transactions on a line.
type pipe struct {
	fakeLink
	start    time.Time
	stubborn time.Duration // how long a transaction takes to notice that it is over
	openings int           // since the last closing

	mu        sync.Mutex // guards what follows, and the fields of tasks
	now, most int
	problems  []string
}

// locked lets f see and change what transactions under way use.
func (p *pipe) locked(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *pipe) Open(ctx context.Context) error {
	if p.openings++; p.openings != 1 {
		p.locked(func() { p.problems = append(p.problems, "opened twice") })
	}
	return p.fakeLink.Open(ctx)
}

func (p *pipe) Close() error {
	p.openings--
	p.locked(func() {
		if p.now != 0 || p.openings != 0 {
			p.problems = append(p.problems, fmt.Sprintf("closed with %d transactions under way, %d times", p.now, 1-p.openings))
		}
	})
	return p.fakeLink.Close()
}

// asks is a task whose every transaction takes that long, and fails with what
// fails returns.
type asks struct {
	pipe  *pipe
	took  time.Duration
	fails func() error
	begun []time.Duration
	ended []error
}

func (a *asks) Begin(time.Time) { a.begun = append(a.begun, time.Since(a.pipe.start)) }

func (a *asks) Step(ctx context.Context, t *scheduler.Turn) (bool, error) {
	t.Sent = true
	p := a.pipe
	var took time.Duration
	p.locked(func() {
		p.now++
		p.most = max(p.most, p.now)
		took = a.took
	})
	defer p.locked(func() { p.now-- })
	select {
	case <-time.After(took):
	case <-ctx.Done():
		<-time.After(p.stubborn)
		return false, fmt.Errorf("asking: %w", ctx.Err())
	}
	var err error
	p.locked(func() {
		if a.fails != nil {
			err = a.fails()
		}
	})
	t.Took = took
	return false, err
}

func (a *asks) End(err error) func(context.Context) {
	a.ended = append(a.ended, err)
	return nil
}

// pipeline is a lane with eight transactions at a time, and 20 devices.
func pipeline(t *testing.T, p *pipe, took time.Duration) (*running, []*asks) {
	cfg := fixed()
	cfg.Transactions = 8
	p.start = time.Now()
	var tasks []*asks
	var polls []scheduler.Poll
	for i := range 20 {
		tasks = append(tasks, &asks{pipe: p, took: took})
		polls = append(polls, scheduler.Poll{Device: fmt.Sprint(i), Every: time.Second, Task: tasks[i]})
	}
	return start(t, p, cfg, polls...), tasks
}

func (p *pipe) check(t *testing.T) {
	t.Helper()
	if p.most > 8 || p.now != 0 || len(p.problems) > 0 || p.openings != 0 {
		t.Errorf("at most %d transactions at a time, %d left, %d openings left; %v", p.most, p.now, p.openings, p.problems)
	}
}

func TestALineCarriesAsManyTransactionsAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{}
		l, tasks := pipeline(t, p, 395*time.Millisecond) // 20 × 0.395 s a second, of 8
		l.at(p.start, 20*time.Second)
		s := l.Status()
		l.end()
		p.check(t)
		if p.most != 8 || s.Skipped > 0 || s.Utilisation < 0.9 || s.Utilisation > 1 {
			t.Errorf("at most %d at a time, %d rounds skipped, utilisation %v", p.most, s.Skipped, s.Utilisation)
		}
		for i, task := range tasks {
			if len(task.ended) < 20 {
				t.Errorf("task %d: %d rounds", i, len(task.ended))
			}
		}
	})
}

func TestASlowDeviceHoldsNobodyOnALineWithSeveralTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{}
		l, tasks := pipeline(t, p, 10*time.Millisecond)
		p.locked(func() {
			for _, slow := range tasks[:6] {
				slow.took = time.Hour
			}
		})
		l.at(p.start, 60*time.Second)
		for i, task := range tasks[6:] {
			if len(task.ended) != 60 {
				t.Errorf("task %d: %d rounds", i+6, len(task.ended))
			}
		}
		if s := l.Status(); s.BusySince.Sub(p.start) > time.Second {
			t.Errorf("busy since %v", s.BusySince.Sub(p.start))
		}
		l.end()
		p.check(t)
	})
}

func TestALossWithSeveralTransactionsUnderWayRepeatsThemAll(t *testing.T) {
	for name, loses := range map[string]func(p *pipe, tasks []*asks){
		"told by the link": func(p *pipe, _ []*asks) { close(p.lost) },
		"met by a transaction": func(_ *pipe, tasks []*asks) {
			tasks[3].fails = func() error { tasks[3].fails = nil; return errLost }
		},
		"met by all": func(p *pipe, tasks []*asks) {
			for _, a := range tasks {
				a.fails = func() error {
					if p.opened > 1 {
						return nil
					}
					return errLost
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pipe{stubborn: 20 * time.Millisecond}
				l, tasks := pipeline(t, p, 300*time.Millisecond)
				l.at(p.start, 10*time.Second+170*time.Millisecond)
				p.locked(func() { loses(p, tasks) })
				once := l.submit(&order{device: "3", name: "once", start: p.start, took: 200 * time.Millisecond}, time.Minute)
				l.at(p.start, 15*time.Second)
				l.end()
				p.check(t)
				if p.opened != 2 {
					t.Errorf("opened %d times", p.opened)
				}
				if name == "told by the link" {
					once.wants(t, 1) // it comes too late for the line that is lost
				}
				for i, a := range tasks {
					for _, err := range a.ended {
						if err != nil {
							t.Errorf("task %d: %v", i, err)
						}
					}
					if len(a.begun) != len(a.ended) {
						t.Errorf("task %d: begun %d times, ended %d times", i, len(a.begun), len(a.ended))
					}
				}
			})
		})
	}
}

func TestACommandUnderWayWhenAnotherTransactionMeetsTheLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{}
		l, tasks := pipeline(t, p, 10*time.Millisecond)
		l.at(p.start, 10*time.Second)
		p.locked(func() { tasks[5].fails = func() error { tasks[5].fails = nil; return errLost } })
		once := l.submit(&order{device: "3", name: "once", start: p.start, took: 2 * time.Second}, time.Minute)
		again := l.submit(&order{device: "4", name: "again", start: p.start, took: 2 * time.Second, repeat: true}, time.Minute)
		unsent := l.submit(&order{device: "4", name: "unsent", start: p.start, took: 2 * time.Second, unsent: true}, time.Minute)
		l.at(p.start, 15*time.Second)
		l.end()
		p.check(t)
		once.wants(t, 1, scheduler.ErrUnknown, transport.ErrLost)
		again.wants(t, 2)
		unsent.wants(t, 2)
	})
}

func TestWhatIsUnderWayWhenTheLaneIsStoppedHasTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{}
		l, tasks := pipeline(t, p, 4*time.Second)
		p.locked(func() { tasks[2].took, tasks[3].took = time.Hour, time.Hour })
		l.at(p.start, 300*time.Millisecond)
		var under int
		p.locked(func() { under = p.now })
		l.end()
		p.check(t)
		good, cancelled := 0, 0
		for _, a := range tasks {
			for _, err := range a.ended {
				switch {
				case err == nil:
					good++
				case errors.Is(err, context.Canceled):
					cancelled++
				}
			}
		}
		if good != under-2 || cancelled != 2 || time.Since(p.start) != 5300*time.Millisecond {
			t.Errorf("of %d under way, %d ended well and %d were given up, at %v", under, good, cancelled, time.Since(p.start))
		}
	})
}

func TestOneTransactionThatCannotBeStoppedDelaysTheEndAndBreaksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{stubborn: 20 * time.Second}
		l, _ := pipeline(t, p, time.Hour)
		l.at(p.start, time.Second)
		close(p.lost)
		l.at(p.start, 2*time.Second)
		if s := l.Status(); s.State != scheduler.Down || s.BusySince.IsZero() {
			t.Errorf("%+v", s)
		}
		l.end()
		p.check(t)
	})
}

func TestARefusalIsNoLossForTheOthersOnTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{}
		l, tasks := pipeline(t, p, 100*time.Millisecond)
		p.locked(func() { tasks[0].fails = func() error { return transport.ErrFrame } })
		l.at(p.start, 5*time.Second)
		s := l.Status()
		l.end()
		p.check(t)
		if s.Faults != 0 || p.opened != 1 || s.Devices[0].Silent || s.Devices[0].Reason == "" {
			t.Errorf("%+v", s)
		}
	})
}
