package mcp

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// chatter logs what peers bring about, and no more of it than a log can hold: a
// flood of them must not fill the disk. The line after those that were left out
// says how many they were. It may be used concurrently.
type chatter struct {
	log        *slog.Logger
	limit      *rate.Limiter
	suppressed atomic.Uint64
}

func newChatter(log *slog.Logger, each rate.Limit, burst int) *chatter {
	return &chatter{log: log, limit: rate.NewLimiter(each, burst)}
}

func (c *chatter) say(level slog.Level, msg string, args ...any) {
	if !c.limit.Allow() {
		c.suppressed.Add(1)
		return
	}
	if n := c.suppressed.Swap(0); n > 0 {
		args = append(args, "suppressed", n)
	}
	c.log.Log(context.Background(), level, msg, args...)
}
