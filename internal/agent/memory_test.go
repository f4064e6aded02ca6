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
	burst()
	runtime.GC()
	if _, slack := memory(); slack < 32<<20 {
		t.Fatalf("%d bytes are seen after a burst of 64 MiB", slack)
	}
	debug.FreeOSMemory()
	if live, slack := memory(); slack > 32<<20 || live == 0 {
		t.Errorf("%d bytes are left, beside %d in use", slack, live)
	}
}
