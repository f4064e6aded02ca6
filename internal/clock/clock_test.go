package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/clock"
)

func TestTheTimeIsTheSystemsAndItsStateStaysForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock.Clock
		start := time.Now()
		_, first := c.Now()
		<-time.After(500 * time.Millisecond)
		now, second := c.Now()
		if now.Sub(start) != 500*time.Millisecond || first != second {
			t.Errorf("%v %v %v", now.Sub(start), first, second)
		}
		if n := testing.AllocsPerRun(100, func() { c.Now() }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
