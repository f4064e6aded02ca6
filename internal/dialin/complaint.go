package dialin

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/mcp-edge/edge-agent/transport"
)

// complaintEvery is how often one kind of refused caller is logged: whoever can
// reach the port can call as often as he likes.
const complaintEvery = 10 * time.Second

// complaint is about one kind of refused caller.
type complaint struct {
	sometimes rate.Sometimes
	unsaid    atomic.Uint64 // callers since the last one that was logged
}

// complain logs a caller that is hung up on, or counts it for the next time.
func (d *Dialer) complain(c *complaint, caller transport.Conn, what string, args ...any) {
	said := false
	c.sometimes.Do(func() {
		said = true
		args = append([]any{"endpoint", d.cfg.Endpoint, "remote", caller.Info().Remote}, args...)
		if unsaid := c.unsaid.Swap(0); unsaid > 0 {
			args = append(args, "and_others", unsaid)
		}
		d.cfg.Log.Warn(what, args...)
	})
	if !said {
		c.unsaid.Add(1)
	}
}
