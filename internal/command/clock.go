package command

import (
	"crypto/rand"
	"encoding/hex"
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
type SystemClock struct {
	wall  clock.Clock
	boot  string
	since func() time.Duration
}

// NewClock returns the machine's clock. Where it can't tell one boot from the
// next (anywhere but on Linux, or without /proc), each start of the agent counts
// as one.
func NewClock() *SystemClock {
	if boot, since, ok := bootClock(); ok {
		return &SystemClock{boot: boot, since: since}
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	start := time.Now()
	return &SystemClock{boot: hex.EncodeToString(random[:]), since: func() time.Duration { return time.Since(start) }}
}

// Now implements Clock.
func (c *SystemClock) Now() Instant {
	wall, state := c.wall.Now()
	return Instant{Boot: c.boot, Up: c.since(), Wall: wall.UTC().Round(0), Synced: state == record.ClockSynced}
}
