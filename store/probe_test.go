package store_test

import (
	"fmt"
	"testing"

	"github.com/mcp-edge/edge-agent/store"
)

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		for _, g := range []int{0, 64 << 20} {
			s := openRunning(b, b.TempDir(), store.Config{MaxSize: 4 << 30})
			c, _ := s.Cursor(store.CursorConfig{Name: "c"})
			if g > 0 {
				grow(b, s, g)
				empty(b, s, c)
			}
			p := producers(b, s, 1)
			for range 10 {
				w, st := diskWrites(b), s.Stats()
				for range 20 {
					p(0)
				}
				st2 := s.Stats()
				fmt.Printf("grown=%d commits=%d counted/commit=%d disk/commit=%.0f bytes=%d\n", g, st2.Commits-st.Commits, (st2.Written-st.Written)/(st2.Commits-st.Commits), (diskWrites(b)-w)/float64(st2.Commits-st.Commits), st2.Bytes)
			}
		}
	}
}
