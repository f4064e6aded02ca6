package bus

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// everyThird loses every third byte of an answer.
func everyThird(r *modbusslave.Reply) {
	r.Spoiled, r.Mangle = true, func(frame []byte) (left []byte) {
		for i, c := range frame {
			if i%3 != 2 {
				left = append(left, c)
			}
		}
		return left
	}
}

// noise is a multiple of four characters that begin no frame.
func noise(characters int) []byte { return slices.Repeat([]byte{0x55, 0x00, 0xFF, 0x03}, characters/4) }

// babble is noise for 300 ms at 9600 baud and no answer.
func babble(r *modbusslave.Reply) {
	r.Spoiled, r.Mangle = true, func([]byte) []byte { return noise(264) }
}

// One slave of 32 is bad after half a minute; the others' polls load the
// line to 70 %. Who stays within the time that he is given disturbs nobody. Who
// speaks after it speaks into what another one says: that one is asked again.
func TestABadSlaveIsCountedAndItsNeighboursKeepTheirPeriods(t *testing.T) {
	const bad = 11
	neighbours := slices.DeleteFunc(units(1, all), func(unit int) bool { return unit == bad })
	for what, c := range map[string]struct {
		fault   modbusslave.Fault
		counted func(scheduler.DeviceStatus) uint64
	}{
		"is silent":                  {modbusslave.Dead, timeouts},
		"answers for its neighbour":  {modbusslave.WrongUnit, foreign},
		"answers something else":     {modbusslave.WrongFunction, foreign},
		"drops every third byte":     {everyThird, badFrames},
		"stops in the middle":        {modbusslave.Short, badFrames},
		"has a bad checksum":         {modbusslave.BadCRC, badFrames},
		"babbles when it is asked":   {babble, badFrames},
		"answers after the time-out": {modbusslave.Late(1100 * time.Millisecond), timeouts},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := setup{baud: 9600, slaves: all}
			s.loads(0.7, neighbours)
			s.play(t, func(b *bus) {
				time.AfterFunc(30*time.Second, func() { b.slaves[bad].Always(c.fault) })
				pass(*runs)
				whole, after := b.deviation(b.since(0), neighbours), b.deviation(b.since(settled), neighbours)
				b.Logf("period %v: %v; once settled %v; the bad one was asked %d times, %d collisions",
					b.every, whole, after, b.questions([]int{bad}), b.wire.Collisions())
				if after.p99 > 0.10 {
					b.Errorf("once settled: %v, want a p99 of at most 10 %%", after)
				}
				if status := b.status(bad); !status.Silent || status.Timeouts == 0 || c.counted(status) == 0 {
					b.Errorf("status %+v", status)
				}
			})
		})
	}
}

func timeouts(s scheduler.DeviceStatus) uint64  { return s.Timeouts }
func foreign(s scheduler.DeviceStatus) uint64   { return s.Foreign }
func badFrames(s scheduler.DeviceStatus) uint64 { return s.Garbled }

// status is what the lane knows of a unit.
func (b *bus) status(unit int) scheduler.DeviceStatus {
	for _, d := range b.lane.Status().Devices {
		if d.Device == name(unit) {
			return d
		}
	}
	b.Fatalf("no status of unit %d", unit)
	return scheduler.DeviceStatus{}
}

// babbler is a station that talks for a while without listening.
type babbler struct{ tap *wire.Tap }

func (*babbler) Hear([]byte)     {}
func (*babbler) Quiet(time.Time) {}

func (b *babbler) babble(from, to time.Time) {
	b.tap.SayAt(from, noise(40), func(t wire.Talk) {
		if t.Ended.Before(to) {
			b.babble(t.Ended, to)
		}
	})
}

// While somebody babbles without end, nobody understands anybody. That is
// counted, it is no fault of the port, nothing hangs, and each slave is back when
// it is probed next.
func TestALineIsBackAfterSomebodyHasBabbled(t *testing.T) {
	s := setup{baud: 9600, slaves: 8}
	s.loads(0.7, units(1, s.slaves))
	s.play(t, func(b *bus) {
		noisy := &babbler{}
		noisy.tap = b.wire.Attach("babbler", noisy)
		pass(20 * time.Second)
		over := time.Now().Add(time.Minute)
		noisy.babble(time.Now(), over)
		pass(time.Until(over))

		during := b.lane.Status()
		if during.State != scheduler.Up || during.Faults != 0 {
			b.Errorf("the link is %s, with %d faults", during.State, during.Faults)
		}
		for unit := range b.slaves {
			if d := b.status(unit); !d.Silent || d.Timeouts == 0 || d.Garbled == 0 {
				b.Errorf("in the middle of the noise: %+v", d)
			}
		}
		pass(time.Minute)
		for unit := range b.slaves {
			said := b.log.Talks().By(fmt.Sprintf("unit %d", unit)).Within(over, time.Now())
			if len(said) == 0 || b.status(unit).Silent {
				b.Fatalf("unit %d is not back after a minute", unit)
			}
			b.Logf("unit %d is back after %v", unit, said[0].Began.Sub(over))
		}
	})
}
