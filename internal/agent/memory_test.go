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

func TestAnAgentThatAllocatesLittleKeepsLittleGarbage(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		live, allocated uint64
		percent         int
	}{
		{80 * mb, 0, 20},
		{80 * mb, 6 * mb, 20},
		{80 * mb, 20 * mb, 50},
		{80 * mb, 4000 * mb, 100},
		{0, 0, 20},
	} {
		if p := garbage(c.live, c.allocated); p != c.percent {
			t.Errorf("%d MB in use, %d MB allocated: %d %%, want %d", c.live/mb, c.allocated/mb, p, c.percent)
		}
	}
}
