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
	lookEvery = time.Second
	// trimEvery is how often memory that is not needed is given back, which costs a
	// collection: some 50 ms of a processor for the 100 MB of ten thousand links.
	// trimFirst is when for the first time, as a start leaves the most.
	trimEvery = 30 * time.Second
	trimFirst = 10 * time.Second
	// trimLeast is not worth that.
	trimLeast = 4 << 20

	// An agent is busy when it allocates more than busyRate between two looks, and
	// calm when it has not been busy for calmAfter.
	busyRate  = 4 << 20
	calmAfter = 10 * time.Second
	// calmGarbage is how much garbage may gather when it is calm; otherwise as much
	// as is in use, which is what the runtime takes by itself.
	calmGarbage = 12 << 20
)

// limitGarbage says how much garbage may gather, in percent of what is in use,
// unless the user has said it with GOGC.
func limitGarbage(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// calm is how much that is when the agent is calm. Less than a tenth of what is in
// use would not be worth a collection.
func calm(live uint64) int { return int(min(max(100*calmGarbage/max(live, 1), 10), 100)) }

// sweep makes room where the configuration's text was, before the agent is built of
// it: what is built first would otherwise stand between the gaps for good.
func sweep() {
	runtime.GC()
	limitGarbage(calm(measure().live))
}

// tend keeps the heap small: a calm agent gathers little garbage, and memory that a
// burst has left behind goes back to the machine.
func tend(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := measure()
	percent := calm(last.live)
	untilTrim, untilCalm := trimFirst, time.Duration(0)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now := measure()
		untilTrim -= lookEvery
		untilCalm -= lookEvery
		if now.allocated-last.allocated > busyRate {
			untilCalm = calmAfter
		}
		last = now
		wanted := 100
		if untilCalm <= 0 {
			wanted = calm(now.live)
		}
		if change := wanted - percent; max(change, -change) > percent/8 { // it stops the world for a moment
			limitGarbage(wanted)
			percent = wanted
		}
		if untilTrim <= 0 {
			untilTrim = trimEvery
			if now.slack > trimLeast && now.slack > now.live/16 {
				debug.FreeOSMemory()
			}
		}
	}
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
