package agent

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// lookEvery is how often the agent looks at its memory.
	lookEvery = 5 * time.Second
	// collectEvery is how far apart collections of garbage may be. Each costs some
	// 50 ms of a processor for the 100 MB of ten thousand links or sessions.
	collectEvery = 10 * time.Second
	// trimEvery is how often memory that is not needed is given back, which costs a
	// collection; trimFirst is when for the first time, as a start leaves the most.
	trimEvery = 30 * time.Second
	trimFirst = 10 * time.Second
	// trimLeast is not worth that.
	trimLeast = 4 << 20
)

// Bounds of how much garbage may gather, in percent of what is in use. The upper
// one is the runtime's own, which on a gateway with 512 MB is other programs' room.
const (
	leastGarbage = 20
	mostGarbage  = 100
)

// limitGarbage changes how much garbage may gather, unless GOGC says it.
func limitGarbage(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// sweep makes room where the configuration's text was, before the agent is built of
// it: what is built first would otherwise stand between the gaps for good.
func sweep() {
	limitGarbage(leastGarbage)
	runtime.GC()
}

// tend keeps the heap small: an agent that makes little garbage keeps little of it,
// and memory that a burst has left behind goes back to the machine.
func tend(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	percent, last := leastGarbage, measure()
	for wait := trimFirst; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now := measure()
		if p := garbage(now.live, now.allocated-last.allocated); p != percent {
			limitGarbage(p)
			percent = p
		}
		last = now
		if wait -= lookEvery; wait > 0 {
			continue
		}
		wait = trimEvery
		if now.slack > trimLeast && now.slack > now.live/16 {
			debug.FreeOSMemory()
		}
	}
}

// garbage is how much may gather, in percent of what is in use, when so much was
// allocated between two looks.
func garbage(live, allocated uint64) int {
	wanted := 100 * allocated * uint64(collectEvery/lookEvery) / max(live, 1)
	return int(min(max(wanted, leastGarbage), mostGarbage))
}

// memory is what the runtime tells of the heap, in bytes.
type memory struct {
	live      uint64 // in use, as the last collection found
	slack     uint64 // taken from the machine beyond that
	allocated uint64 // since the start
}

func measure() memory {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	var taken uint64
	for _, s := range samples[2:] {
		taken += s.Value.Uint64()
	}
	live := samples[0].Value.Uint64()
	return memory{live: live, slack: max(taken, live) - live, allocated: samples[1].Value.Uint64()}
}
