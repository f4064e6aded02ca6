package bus

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// master is the agent's name on the line.
const master = "master"

// setup says what hangs on a line and how it is polled.
type setup struct {
	baud      int
	slaves    int           // with the units 1, 2, …
	registers int           // that a poll reads; 10 when 0
	every     time.Duration // of each slave's poll
}

// answerTime of a slave lies between 2 and 10 ms.
func answerTime(unit int) time.Duration {
	return 2*time.Millisecond + time.Duration(unit*7%17)*500*time.Microsecond
}

// transaction is how long one with this unit takes at best: request, the
// silence that ends it, the slave's time, its answer, and the silence that ends that.
func (s setup) transaction(unit int) time.Duration {
	line := s.line(nil)
	return time.Duration(s.characters())*line.CharTime() + 2*line.Silence() + answerTime(unit)
}

// characters of a transaction.
func (s setup) characters() int { return 8 + 5 + 2*s.reads() }

func (s setup) reads() int {
	if s.registers == 0 {
		return 10
	}
	return s.registers
}

func (s setup) line(onTalk func(wire.Talk)) *wire.Line {
	return wire.New(wire.Config{Baud: s.baud, Piece: 16 * time.Millisecond, OnTalk: onTalk})
}

// loads sets the period at which these units' polls take a share of the line.
func (s *setup) loads(share float64, units []int) {
	sum := time.Duration(0)
	for _, unit := range units {
		sum += s.transaction(unit)
	}
	s.every = time.Duration(float64(sum) / share)
}

// bus is a line with slaves and the agent's lane on it.
type bus struct {
	testing.TB
	setup
	wire   *wire.Line
	log    wire.Log
	slaves map[int]*modbusslave.Slave
	link   *modbus.Link
	lane   *scheduler.Lane
	start  time.Time
}

// play runs a bus in a bubble until play returns.
func (s setup) play(t *testing.T, play func(b *bus)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := s.build(t)
		defer b.run(b.wire.Dialer(master))()
		play(b)
	})
}

// build makes the line and its slaves.
func (s setup) build(t testing.TB) *bus {
	b := &bus{TB: t, setup: s, slaves: make(map[int]*modbusslave.Slave)}
	b.wire = s.line(b.log.Note)
	for unit := 1; unit <= s.slaves; unit++ {
		slave := modbusslave.New(modbusslave.Config{Unit: unit, Delay: answerTime(unit)})
		slave.Set(modbus.Holding, 0, make([]uint16, s.reads())...)
		slave.Attach(b.wire)
		b.slaves[unit] = slave
	}
	return b
}

// run opens the lane on the line and lets time pass, until stop.
func (b *bus) run(d transport.Dialer) (stop func()) {
	quiet := slog.New(slog.DiscardHandler)
	link, err := modbus.NewLink(d, modbus.LinkConfig{Framing: modbus.FramingRTU, LateReplyGuard: time.Second}, quiet)
	if err != nil {
		b.Fatal(err)
	}
	b.link = link
	var polls []scheduler.Poll
	for unit := 1; unit <= b.setup.slaves; unit++ {
		polls = append(polls, b.poll(unit))
	}
	b.lane, err = scheduler.NewLane("line", link, polls, scheduler.Config{RetryCount: 3}, scheduler.NewShared(scheduler.SharedConfig{Workers: 2}), quiet)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	lineCtx, endLine := context.WithCancel(context.WithoutCancel(ctx))
	var lane, line sync.WaitGroup
	b.start = time.Now()
	line.Go(func() { _ = b.wire.Run(lineCtx) })
	lane.Go(func() { _ = b.lane.Run(ctx) })
	return func() {
		cancel()
		lane.Wait()
		endLine()
		line.Wait()
	}
}

func (b *bus) poll(unit int) scheduler.Poll {
	cfg := modbus.PollConfig{ID: name(unit), Name: "poll", Device: deviceConfig(unit), Points: b.points()}
	task, err := b.link.Poll(cfg, nowhere{}, clock)
	if err != nil {
		b.Fatal(err)
	}
	return scheduler.Poll{Device: cfg.ID, Name: cfg.Name, Every: b.every, Task: task}
}

func deviceConfig(unit int) modbus.DeviceConfig {
	return modbus.DeviceConfig{Unit: unit, MaxRegisters: 125, MaxBits: 2000}
}

// points that lie side by side, so that one request reads them.
func (s setup) points() (list []modbus.PointConfig) {
	for i := range s.reads() {
		list = append(list, modbus.PointConfig{
			Name: fmt.Sprintf("p%d", i), Address: fmt.Sprintf("holding:%d", i), Type: "uint16", Order: "ABCD", Scale: 1, Width: 1, Access: "rw",
		})
	}
	return list
}

func name(unit int) string { return fmt.Sprintf("unit-%d", unit) }

func clock() record.Stamp { return record.Stamp{Time: time.Now(), Clock: record.ClockSynced} }

// nowhere takes all records.
type nowhere struct{}

var _ modbus.Sink = nowhere{}

func (nowhere) Offer(record.Record) bool                     { return true }
func (nowhere) Deliver(context.Context, record.Record) error { return nil }

// pass lets time pass.
func pass(d time.Duration) { <-time.After(d) }

// since returns what was said from a time after the start on.
func (b *bus) since(d time.Duration) wire.Talks {
	return b.log.Talks().Within(b.start.Add(d), time.Now())
}

// orderly fails when anybody spoke into another's talk or too soon after it.
func (b *bus) orderly() {
	b.Helper()
	talks := b.log.Talks()
	if gap, ok := talks.ShortestGap(); ok && gap < b.wire.Silence() {
		b.Errorf("a gap of %v, want at least %v", gap, b.wire.Silence())
	}
	if n := b.wire.Collisions(); n != 0 {
		b.Errorf("%d collisions", n)
	}
}

// deviation is by how much periods differ from what they should be, as a share of that.
type deviation struct {
	worst, p99 float64
	periods    int
	of         int // the unit of the worst
}

func (d deviation) String() string {
	return fmt.Sprintf("worst %.1f %% (unit %d), p99 %.1f %%, of %d periods", 100*d.worst, d.of, 100*d.p99, d.periods)
}

// deviation looks at the periods of some units in talks.
func (b *bus) deviation(talks wire.Talks, units []int) (d deviation) {
	b.Helper()
	var all []float64
	for _, unit := range units {
		periods := talks.Requests(master, byte(unit)).Periods()
		if len(periods) == 0 {
			b.Errorf("unit %d was not polled", unit)
		}
		for _, p := range periods {
			off := float64((p - b.every).Abs()) / float64(b.every)
			if all = append(all, off); off > d.worst {
				d.worst, d.of = off, unit
			}
		}
	}
	slices.Sort(all)
	if d.periods = len(all); d.periods > 0 {
		d.p99 = all[(d.periods*99-1)/100]
	}
	return d
}

// units from first to last.
func units(first, last int) (list []int) {
	for unit := first; unit <= last; unit++ {
		list = append(list, unit)
	}
	return list
}
