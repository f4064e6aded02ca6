package bus

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// A line that always has a poll due carries a command next: nothing comes
// between the transaction under way and the command but the silence.
func TestACommandGoesOnTheWireBehindTheTransactionUnderWay(t *testing.T) {
	s := setup{baud: 9600, slaves: 8}
	s.loads(2, units(1, s.slaves))
	s.play(t, func(b *bus) {
		random := rand.New(rand.NewPCG(3, 4))
		pass(10 * time.Second)
		var longest time.Duration
		for range 500 {
			pass(time.Duration(random.Int64N(int64(time.Second))))
			submitted := time.Now()
			done := make(chan error, 1)
			job := scheduler.Job{Device: name(1), Task: b.write(1, done), Deadline: submitted.Add(10 * time.Second)}
			if err := b.lane.Submit(job); err != nil {
				b.Fatal(err)
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			wait, limit := b.waited(submitted)
			longest = max(longest, wait)
			if wait > limit {
				b.Fatalf("a command waited %v, want at most %v", wait, limit)
			}
		}
		b.Logf("of 500 commands none waited longer than %v; a transaction takes up to %v", longest, b.transaction(8))
		b.orderly()
	})
}

// waited is how long the newest command took to get on the wire, and how long
// it may have taken: what was left of the transaction under way, which begins
// with the silence before its request, and one silence more.
func (b *bus) waited(submitted time.Time) (wait, limit time.Duration) {
	talks := b.log.Talks()
	isCommand := func(t wire.Talk) bool {
		return t.Who == master && t.Bytes[1] != byte(modbus.ReadHoldingRegisters)
	}
	i := len(talks) - 1
	for ; !isCommand(talks[i]); i-- {
	}
	began, before := talks[i].Began, talks[:i]
	limit = b.wire.Silence()
	for _, t := range before[max(0, i-4):] {
		if t.Who == master && t.Began.Add(-b.wire.Silence()).After(submitted) {
			return began.Sub(submitted), 0 // a poll was begun although the command waited
		}
		if left := t.Ended.Sub(submitted); left > 0 {
			limit = left + b.wire.Silence()
		}
	}
	return began.Sub(submitted), limit
}

// write is a command that sets a register of a unit, and tells done how it ended.
func (b *bus) write(unit int, done chan<- error) scheduler.Task {
	spec := modbus.DeviceSpec{ID: name(unit), Device: deviceConfig(unit), Polls: []modbus.PollPoints{{Poll: "poll", Points: b.points()}}}
	device, err := b.link.Device(spec)
	if err != nil {
		b.Fatal(err)
	}
	command, err := device.Write("p0", record.Uint(7), modbus.WriteOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return told{command, done}
}

// told is a Task that tells how it ended.
type told struct {
	scheduler.Task
	done chan<- error
}

func (t told) End(err error) func(context.Context) {
	t.done <- err
	return t.Task.End(err)
}
