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

// ignores is a device that answers its polls and no command.
func ignores(int, int) error { return os.ErrDeadlineExceeded }

func TestADeviceThatIgnoresCommandsHurtsNeitherItsNeighboursNorItsPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(32, 10*time.Millisecond)
		cfg := adaptive()
		cfg.Timeout = time.Second
		l := start(t, &fakeLink{}, cfg, polls...)
		l.at(begin, 10*time.Second)
		var orders []*order
		for i := range 64 {
			o := &order{device: "u03", name: fmt.Sprint(i), start: begin, answer: ignores}
			orders = append(orders, o)
			l.submit(o, 30*time.Second)
		}
		l.at(begin, 70*time.Second)
		for i, u := range list {
			if n := len(u.ended); n < 67 {
				t.Errorf("device %d had %d of 70 rounds", i, n)
			}
		}
		unknown, expired := 0, 0
		for _, o := range orders {
			switch {
			case len(o.ended) != 1:
				t.Errorf("%s: %v", o.name, o.ended)
			case errors.Is(o.ended[0], scheduler.ErrUnknown):
				unknown++
			case errors.Is(o.ended[0], scheduler.ErrExpired):
				expired++
			}
		}
		if unknown < 3 || unknown > 20 || unknown+expired != len(orders) {
			t.Errorf("%d unknown, %d expired", unknown, expired)
		}
		if d := l.Status().Devices[3]; d.Silent || d.Reason != "" {
			t.Errorf("%+v", d)
		}
		l.end()
	})
}

func TestACommandToASilentDeviceGoesSoonAndSaysWhyWhenItDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list, polls := units(32, 10*time.Millisecond)
		for _, u := range list[:8] {
			u.dead = true
		}
		l := start(t, &fakeLink{}, adaptive(), polls...)
		l.at(begin, 20*time.Minute)
		var orders []*order
		for i := range 6 {
			o := &order{device: fmt.Sprintf("u%02d", i), name: fmt.Sprint(i), start: begin, answer: ignores}
			orders = append(orders, o)
			l.submit(o, 30*time.Second)
		}
		l.at(begin, 21*time.Minute)
		for _, o := range orders {
			if len(o.ended) != 1 || !errors.Is(o.ended[0], scheduler.ErrUnknown) {
				t.Errorf("command to silent device %s: %v", o.name, o.ended)
			}
		}
		l.end()
	})
}

func TestAnAnswerThatSaysNoEndsQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		no := false
		task := &fakeTask{answer: func(time.Duration, int, int) error {
			if no {
				return errors.New("the device says no")
			}
			return os.ErrDeadlineExceeded
		}}
		l := start(t, &fakeLink{}, fixed(), poll("d", time.Second, task))
		l.at(begin, 5*time.Minute)
		if !l.Status().Devices[0].Silent {
			t.Error("a mute device is not silent")
		}
		no = true
		l.at(begin, 7*time.Minute)
		if d := l.Status().Devices[0]; d.Silent || d.Reason != "the device says no" {
			t.Errorf("%+v", d)
		}
		l.end()
	})
}

func TestABroadcastSaysNothingAboutADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		dead := &fakeTask{answer: silent}
		l := start(t, &fakeLink{}, fixed(), poll("d", time.Second, dead))
		l.at(begin, time.Minute)
		all := &broadcast{}
		if err := l.Submit(scheduler.Job{Device: "d", Task: all, Deadline: time.Now().Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		l.at(begin, 65*time.Second)
		if d := l.Status().Devices[0]; !d.Silent || !d.LastGood.IsZero() || all.ended != 1 {
			t.Errorf("%+v, ended %d times", d, all.ended)
		}
		l.end()
	})
}

func TestASensorThatConnectsAndLeavesIsNoFaultOfThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		link := &visitedLink{}
		l := start(t, link, fixed())
		l.at(begin, 10*time.Minute)
		if s := l.Status(); s.Breaker != scheduler.BreakerClosed || s.Faults != 0 || link.opened < 100 {
			t.Errorf("%+v, opened %d times", s, link.opened)
		}
		l.end()
	})
}

// broadcast is a task that nobody answers.
type broadcast struct{ ended int }

func (*broadcast) Begin(time.Time) {}

func (*broadcast) Step(_ context.Context, t *scheduler.Turn) (bool, error) {
	t.Sent, t.Unanswered = true, true
	return false, nil
}

func (b *broadcast) End(error) func(context.Context) {
	b.ended++
	return nil
}

// visitedLink is open for three seconds at a time.
type visitedLink struct{ fakeLink }

func (l *visitedLink) Open(ctx context.Context) error {
	err := l.fakeLink.Open(ctx)
	lost := l.lost
	time.AfterFunc(3*time.Second, func() { close(lost) })
	return err
}
