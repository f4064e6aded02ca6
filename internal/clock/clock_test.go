package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/clock"
	"github.com/mcp-edge/edge-agent/record"
)

func TestTheTimeIsTheSystemsAndItsStateStaysForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clock.New()
		start := time.Now()
		first := c.Now()
		<-time.After(500 * time.Millisecond)
		now := c.Now()
		if now.Time.Sub(start) != 500*time.Millisecond || first.Clock != now.Clock {
			t.Errorf("%+v %+v", first, now)
		}
		if n := testing.AllocsPerRun(100, func() { c.Now() }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestATimeThatCannotBeTrustedHasTheBootAndTheTimeSinceItBesideIt(t *testing.T) {
	m := boot("one")
	c := clock.Of(m)
	m.pass(5 * time.Minute)
	first := c.Now()
	m.set(m.now.AddDate(20, 0, 0))
	second := c.Now()
	if first.Clock != record.ClockUnsynced || first.Boot == 0 || first.Up != 5*time.Minute || second.Up != first.Up || second.Boot != first.Boot {
		t.Errorf("%+v, %+v", first, second)
	}
	if other := clock.Of(boot("two")).Now(); other.Boot == first.Boot {
		t.Errorf("two boots are called %s", other.Boot)
	}
	m.sync()
	m.pass(2 * time.Second)
	if now := c.Now(); now != (record.Stamp{Time: m.now, Clock: record.ClockSynced}) {
		t.Errorf("%+v", now)
	}
}

func TestTheMachinesTimeSinceItsStartGoesOnFromOneClockToTheNext(t *testing.T) {
	first := clock.New()
	up := first.Up()
	second := clock.New()
	if first.Boot() == "" || first.Boot() != second.Boot() || second.Up() < up || up <= 0 {
		t.Errorf("%s %v, then %s %v", first.Boot(), up, second.Boot(), second.Up())
	}
}
