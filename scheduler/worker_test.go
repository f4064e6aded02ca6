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
)

// diary notes in which order things happen to a device.
type diary struct {
	start time.Time
	mu    sync.Mutex // for workers of several devices
	lines []string
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

// first is how the diary begins.
func (d *diary) first(n int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprint(d.lines[:min(n, len(d.lines))])
}

// heavy is a poll whose End leaves work that takes so long; 0: none.
type heavy struct {
	*diary
	name  string
	round int
	work  time.Duration
	busy  bool
	begun []time.Duration
	gave  bool // the last work gave up because its context ended
}

func (h *heavy) Begin(time.Time) {
	if h.busy {
		panic("a round begins before the work of the one before is done")
	}
	h.round++
	h.begun = append(h.begun, time.Since(h.start))
}

func (h *heavy) Step(_ context.Context, t *scheduler.Turn) (bool, error) {
	t.Sent, t.Took = true, time.Millisecond
	<-time.After(time.Millisecond)
	return false, nil
}

func (h *heavy) End(error) func(context.Context) {
	h.note("end %s%d", h.name, h.round)
	if h.work == 0 {
		return nil
	}
	h.busy = true
	return func(ctx context.Context) {
		select {
		case <-time.After(h.work):
		case <-ctx.Done():
			h.gave = true
		}
		h.note("done %s%d", h.name, h.round)
		h.busy = false
	}
}

func withWorkers(t *testing.T, n int, polls ...scheduler.Poll) *running {
	t.Helper()
	lane, err := scheduler.NewLane("line", &fakeLink{}, polls, fixed(), scheduler.NewShared(scheduler.SharedConfig{Workers: n, MaxOpening: 1}), quiet)
	if err != nil {
		t.Fatal(err)
	}
	return startLane(t, lane)
}

func TestWhatARoundLeadsToLeavesInOrderForEachDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{start: time.Now()}
		a := &heavy{diary: d, name: "a", work: 500 * time.Millisecond}
		b := &heavy{diary: d, name: "b"}
		other := &heavy{diary: &diary{start: d.start}, name: "other"}
		l := withWorkers(
			t, 4,
			scheduler.Poll{Device: "d", Every: 300 * time.Millisecond, Task: a},
			scheduler.Poll{Device: "d", Every: 300 * time.Millisecond, Task: b},
			scheduler.Poll{Device: "other", Every: 300 * time.Millisecond, Task: other},
		)
		l.at(d.start, 1150*time.Millisecond)
		o := l.submit(&order{device: "d", start: d.start}, time.Minute)
		l.at(d.start, 1160*time.Millisecond)
		o.wants(t, 1) // it does not wait for the device's readings
		l.at(d.start, 3*time.Second)
		l.end()
		want := "[end a1 done a1 end b1 end a2 done a2 end b2 end a3 done a3 end b3]"
		if got := d.first(9); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if len(other.begun) != 10 {
			t.Errorf("the other device has had %d rounds", len(other.begun))
		}
		for i := 1; i < len(a.begun); i++ {
			if gap := a.begun[i] - a.begun[i-1]; gap < 500*time.Millisecond {
				t.Errorf("%v between its rounds", gap)
			}
		}
	})
}

func TestWorkWaitsForAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{start: time.Now()}
		var polls []scheduler.Poll
		for i := range 4 {
			polls = append(polls, scheduler.Poll{Device: fmt.Sprint(i), Every: 400 * time.Millisecond, Task: &heavy{diary: d, name: fmt.Sprint("p", i, "."), work: time.Second}})
		}
		shared := scheduler.NewShared(scheduler.SharedConfig{Workers: 1})
		lane, err := scheduler.NewLane("line", &fakeLink{}, polls, fixed(), shared, quiet)
		if err != nil {
			t.Fatal(err)
		}
		l := startLane(t, lane)
		l.at(d.start, 950*time.Millisecond)
		if s := shared.Status(); s.Working != 1 || s.MaxWorkers != 1 || s.Waiting != 3 {
			t.Errorf("%+v", s)
		}
		l.at(d.start, 4*time.Second)
		if got := d.first(6); got != "[end p0.1 end p1.1 end p2.1 end p3.1 done p0.1 done p1.1]" && got != "[end p0.1 end p1.1 end p2.1 end p3.1 done p0.1 end p0.2]" {
			t.Error(got)
		}
		l.end()
		synctest.Wait()
		if s := shared.Status(); s.Working != 0 || s.Waiting != 0 {
			t.Errorf("after the end: %+v", s)
		}
	})
}

func TestALaneEndsAfterItsWorkAndWorkIsToldToEndAfterTheGrace(t *testing.T) {
	for work, gave := range map[time.Duration]bool{3 * time.Second: false, time.Hour: true} {
		synctest.Test(t, func(t *testing.T) {
			d := &diary{start: time.Now()}
			h := &heavy{diary: d, name: "h", work: work}
			l := withWorkers(t, 1, scheduler.Poll{Device: "d", Every: time.Minute, Task: h})
			l.at(d.start, 500*time.Millisecond)
			l.end()
			if h.busy || h.gave != gave {
				t.Errorf("work of %v: still busy %v, gave up %v", work, h.busy, h.gave)
			}
			if took := time.Since(d.start); took != min(work+time.Millisecond, 5500*time.Millisecond) {
				t.Errorf("work of %v: it took until %v", work, took)
			}
		})
	}
}

func TestTheWorkOfACommandIsDoneOnTheSpot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		done := false
		l := withWorkers(t, 1)
		o := &order{device: "d", start: begin, work: func(ctx context.Context) { done = ctx.Err() == nil }}
		l.submit(o, time.Minute)
		l.at(begin, time.Second)
		if o.wants(t, 1); !done {
			t.Error("it was not done")
		}
		l.end()
	})
}

func TestAPollOfADeviceWhoseWorkIsUnderWayWhenItFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{start: time.Now()}
		h := &heavy{diary: d, name: "h", work: 20 * time.Second}
		mute := &fakeTask{answer: dies}
		l := withWorkers(t, 1, scheduler.Poll{Device: "d", Every: time.Second, Task: h}, poll("d", time.Second, mute))
		l.at(d.start, 19*time.Second)
		if len(mute.ended) != 0 {
			t.Errorf("told %v before the device's work was done", mute.ended)
		}
		l.at(d.start, 5*time.Minute)
		if len(mute.ended) < 5 || len(mute.begun) > len(mute.ended)+1 || errors.Is(mute.ended[0], scheduler.ErrSilent) {
			t.Errorf("begun %v, ended %v", mute.begun, mute.ended)
		}
		l.end()
	})
}
