// Package clock tells the time, and whether it can be trusted.
package clock

import (
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// refresh is how long an answer of the kernel is good for: asking costs a
// system call, and synchronisation does not come and go by the second.
const refresh = time.Second

// Clock is the system's clock. The zero value is ready; it may be used
// concurrently.
type Clock struct {
	asked  atomic.Int64 // monotonic-free Unix nanoseconds of the last look
	synced atomic.Bool
}

// Now returns the time and whether the kernel holds its clock for synchronised
// (by NTP, PTP or GPS: adjtimex(2), STA_UNSYNC).
func (c *Clock) Now() (time.Time, record.Clock) {
	now := time.Now()
	asked := c.asked.Load()
	if age := now.UnixNano() - asked; asked == 0 || age < 0 || age > int64(refresh) {
		c.synced.Store(synchronised())
		c.asked.Store(now.UnixNano())
	}
	if c.synced.Load() {
		return now, record.ClockSynced
	}
	return now, record.ClockUnsynced
}
