package modbus_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// slowBoiler is unit 1 with one point and a gap.
func slowBoiler(t testing.TB, link *modbus.Link, gap time.Duration) *modbus.Device {
	t.Helper()
	cfg := device(1)
	cfg.Gap = gap
	d, err := link.Device(modbus.DeviceSpec{ID: "boiler", Device: cfg, Polls: []modbus.PollPoints{
		{Poll: "p", Points: []modbus.PointConfig{named("setpoint", "holding:1 uint16")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// belated does a command with a deadline, and asks again when it is told to, as
// nobody should after that.
func (p *plant) belated(c *modbus.Command, deadline time.Time) (turn scheduler.Turn, err error) {
	for c.Begin(time.Now()); ; <-time.After(time.Until(early(err))) {
		turn = scheduler.Turn{Timeout: 300 * time.Millisecond, Deadline: deadline}
		if _, err = c.Step(p.Context(), &turn); early(err).IsZero() {
			return turn, err
		}
	}
}

// early is when to ask again; zero for any other error.
func early(err error) time.Time {
	if notYet, ok := errors.AsType[*scheduler.NotYet](err); ok {
		return notYet.Until
	}
	return time.Time{}
}

func TestNoByteOfACommandLeavesAfterItsDeadlineWhateverHeldItUp(t *testing.T) {
	var sent, expired int
	rapid.Check(t, func(rt *rapid.T) {
		gap := time.Duration(rapid.SampledFrom([]int{0, 0, 3, 40, 500}).Draw(rt, "gap")) * time.Millisecond
		noise := rapid.SampledFrom([]int{0, 0, 30, 400}).Draw(rt, "noise")
		unanswered := rapid.Bool().Draw(rt, "a late answer may come")
		left := time.Duration(rapid.SampledFrom([]int{0, 2, 5, 20, 60, 200, 600, 1500}).Draw(rt, "left")) * time.Millisecond
		left += time.Duration(rapid.IntRange(0, 2000).Draw(rt, "and µs")) * time.Microsecond
		var problem string
		onALine(t, []int{1, 2}, func(p *plant, slaves map[int]*modbusslave.Slave) {
			command, err := slowBoiler(p, p.link, gap).Write("setpoint", record.Int(7), modbus.WriteOptions{})
			if err != nil {
				p.Fatal(err)
			}
			if unanswered {
				slaves[1].Next(modbusslave.Dead)
				_ = p.do(command)
			}
			if _, err := p.ask(2, p.read(0, 2)); err != nil {
				p.Fatal(err)
			}
			began := time.Now()
			if noise > 0 {
				p.line.Attach("babbler", deaf{}).Say(make([]byte, noise))
			}
			deadline := time.Now().Add(left)
			turn, err := p.belated(command, deadline)
			told := time.Since(deadline)
			<-time.After(time.Second) // the line becomes quiet
			synctest.Wait()
			var request *time.Time
			for _, talk := range p.talks {
				if talk.Who == "master" && !talk.Began.Before(began) {
					request = &talk.Began
				}
			}
			late := errors.Is(err, scheduler.ErrExpired)
			switch {
			case request != nil && !request.Before(deadline):
				problem = fmt.Sprintf("sent %v after its deadline", request.Sub(deadline))
			case late == turn.Sent || late == (request != nil):
				problem = fmt.Sprintf("%v, %+v, sent at %v", err, turn, request)
			case late && told > max(time.Second, gap): // it waited for what may come late, or for the gap
				problem = fmt.Sprintf("it was told %v after its deadline", told)
			case late:
				expired++
			default:
				sent++
			}
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
	if sent == 0 || expired == 0 {
		t.Errorf("%d were sent and %d expired", sent, expired)
	}
}

func TestTheLineIsNotHeldForADeviceThatMustRestUnlessItIsNeverQuiet(t *testing.T) {
	onALine(t, []int{1, 2}, func(p *plant, _ map[int]*modbusslave.Slave) {
		const gap = 200 * time.Millisecond
		command, err := slowBoiler(p, p.link, gap).Write("setpoint", record.Int(7), modbus.WriteOptions{})
		if err != nil {
			p.Fatal(err)
		}
		step := func() error {
			_, err := command.Step(p.Context(), &scheduler.Turn{Timeout: 300 * time.Millisecond})
			return err
		}
		busy := func() (until time.Time) {
			if _, err := p.ask(2, p.read(0, 2)); err != nil {
				p.Fatal(err)
			}
			return time.Now().Add(gap)
		}
		command.Begin(time.Now())
		rested := busy()
		start := time.Now()
		if until := early(step()); until.Sub(rested).Abs() > p.line.Silence() || time.Now() != start {
			p.Errorf("put off until %v, it has rested at %v", until, rested)
		}
		<-time.After(gap / 2)
		busy()
		<-time.After(gap / 2)
		rested = busy()
		if err := step(); err != nil || time.Now().Before(rested) {
			p.Errorf("on a line that is never quiet it was sent after %v: %v", time.Since(rested)+gap, err)
		}
		command.Begin(time.Now())
		if err := step(); early(err).IsZero() {
			p.Errorf("the next one: %v", err)
		}
	})
}
