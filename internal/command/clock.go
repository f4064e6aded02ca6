package command

import (
	"time"

	"github.com/mcp-edge/edge-agent/internal/clock"
	"github.com/mcp-edge/edge-agent/record"
)

// Clock tells how much time has passed, across restarts of the agent and, as far
// as that can be known, of the machine. It may be used concurrently.
type Clock interface {
	Now() Instant
}

// Instant is a point in time that a later process can measure from.
type Instant struct {
	Boot   string        `json:"boot"` // names the time from one boot to the next
	Up     time.Duration `json:"up"`   // since then, suspension included
	Wall   time.Time     `json:"wall"`
	Synced bool          `json:"synced,omitempty"` // Wall can be trusted
}

// until is how long it took from i to now. In one boot nobody can set the clock
// that tells, but a virtual machine that goes on from a snapshot turns it back:
// there a synchronised clock knows better, if it says more. From one boot to the
// next only that one tells. Otherwise, or if time seems to have run backwards, it
// is not known.
func (i Instant) until(now Instant) (passed time.Duration, known bool) {
	byWall := now.Wall.Round(0).Sub(i.Wall.Round(0))
	switch synced := i.Synced && now.Synced; {
	case i.Boot == now.Boot && synced:
		passed = max(now.Up-i.Up, byWall)
	case i.Boot == now.Boot:
		passed = now.Up - i.Up
	case synced:
		passed = byWall
	default:
		return 0, false
	}
	return passed, passed >= 0
}

// SystemClock is the machine's.
type SystemClock struct{ clock *clock.Clock }

// NewClock measures by a clock of the machine.
func NewClock(c *clock.Clock) *SystemClock { return &SystemClock{clock: c} }

// Now implements Clock.
func (c *SystemClock) Now() Instant {
	now := c.clock.Now()
	return Instant{Boot: c.clock.Boot(), Up: c.clock.Up(), Wall: now.Time.UTC().Round(0), Synced: now.Clock == record.ClockSynced}
}
