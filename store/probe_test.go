package store_test

import (
	"fmt"
	"testing"
	"os"
	"strings"
	"strconv"
	"path/filepath"

	"github.com/mcp-edge/edge-agent/store"
)

func sectors() float64 {
	l := os.Getenv("LOOP")
	t, _ := os.ReadFile("/sys/block/" + filepath.Base(l) + "/stat")
	f := strings.Fields(string(t))
	v, _ := strconv.ParseFloat(f[6], 64)
	return v * 512
}

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
			for range 6 {
				w, st, x := diskWrites(b), s.Stats(), sectors()
				for range 40 {
					p(0)
				}
				st2 := s.Stats()
				n := float64(st2.Commits-st.Commits)
				fmt.Printf("grown=%d commits=%v counted/commit=%d proc/commit=%.0f device/commit=%.0f bytes=%d\n", g, n, (st2.Written-st.Written)/(st2.Commits-st.Commits), (diskWrites(b)-w)/n, (sectors()-x)/n, st2.Bytes)
			}
		}
	}
}
