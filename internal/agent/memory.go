package agent

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// trimEvery is how often memory that is not needed is looked for. Giving it
	// back costs a garbage collection: some 50 ms for the 100 MB of ten thousand
	// sessions.
	trimEvery = 30 * time.Second
	// trimLeast is not worth that.
	trimLeast = 4 << 20
)

// trim gives memory that a burst has left behind back to the machine. The
// runtime keeps up to as much again as is in use, which on a gateway with 512 MB
// is other programs' room.
func trim(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if live, slack := memory(); slack > trimLeast && slack > live/16 {
				debug.FreeOSMemory()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// memory tells how much the last garbage collection found in use, and how much
// the heap has taken from the machine beyond that.
func memory() (live, slack uint64) {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	var taken uint64
	for _, s := range samples[1:] {
		taken += s.Value.Uint64()
	}
	live = samples[0].Value.Uint64()
	return live, max(taken, live) - live
}
