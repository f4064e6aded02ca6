package agent

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// burst takes 64 MiB and forgets them.
func burst() {
	all := make([][]byte, 64)
	for i := range all {
		all[i] = make([]byte, 1<<20)
	}
	runtime.KeepAlive(all)
}

func TestTheMemoryThatABurstLeavesBehindIsSeenAndGoneAfterwards(t *testing.T) {
	before := measure()
	burst()
	runtime.GC()
	now := measure()
	if now.slack < 32<<20 || now.allocated-before.allocated < 64<<20 {
		t.Fatalf("a burst of 64 MiB shows as %+v after %+v", now, before)
	}
	debug.FreeOSMemory()
	if now = measure(); now.slack > 32<<20 || now.live == 0 {
		t.Errorf("%+v are left", now)
	}
}

func TestACalmAgentGathersLittleGarbage(t *testing.T) {
	for live, percent := range map[uint64]int{0: 100, 6 << 20: 100, 12 << 20: 100, 48 << 20: 25, 800 << 20: 10} {
		if p := calm(live); p != percent {
			t.Errorf("%d MiB in use: %d %%, want %d", live>>20, p, percent)
		}
	}
}
