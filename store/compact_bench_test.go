package store_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

// BenchmarkCompact gives the space of a file of 1 GiB back in which 256 MiB live,
// while 64 producers append: how long the longest append takes while that goes on, and
// in as much time without.
func BenchmarkCompact(b *testing.B) {
	const live, size = 256 << 20, 1 << 30
	var stalls, quiets, commits, swaps, tooks []float64
	for b.Loop() {
		b.StopTimer()
		s := openRunning(b, b.TempDir(), store.Config{MaxSize: 4 << 30})
		cursor, err := s.Cursor(store.CursorConfig{Name: "c"})
		if err != nil {
			b.Fatal(err)
		}
		grow(b, s, size)
		if err := s.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		deliver(b, s, cursor, live)
		appendOne := producers(b, s, 64)
		quiets = append(quiets, longest(b, appendOne, func() { <-time.After(2 * time.Second) }))
		b.StartTimer()
		stalls = append(stalls, longest(b, appendOne, func() {
			if err := s.Compact(b.Context()); err != nil {
				b.Error(err)
			}
		}))
		b.StopTimer()
		st := s.Stats().Compaction
		commits = append(commits, float64(st.Stall.Microseconds())/1000)
		swaps = append(swaps, float64(st.Swap.Microseconds())/1000)
		tooks = append(tooks, st.Took.Seconds())
		b.StartTimer()
	}
	b.ReportMetric(median(stalls), "longest-append-ms")
	b.ReportMetric(median(quiets), "longest-without-ms")
	b.ReportMetric(median(commits), "longest-commit-ms")
	b.ReportMetric(median(swaps), "swap-ms")
	b.ReportMetric(median(tooks), "s")
}

// longest is the longest append, in milliseconds, of 64 producers while something is
// done.
func longest(b *testing.B, appendOne appender, during func()) float64 {
	var worst atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		during()
	}()
	over := func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	for !over() {
		load(b, 64, 100*time.Millisecond, func(i int) error {
			began := time.Now()
			err := appendOne(i)
			for took := int64(time.Since(began)); ; {
				before := worst.Load()
				if took <= before || worst.CompareAndSwap(before, took) {
					return err
				}
			}
		})
	}
	return float64(worst.Load()) / 1e6
}

// deliver acknowledges until no more than some bytes are left, and waits until the
// rest is freed.
func deliver(b *testing.B, s *store.Store, c *store.Cursor, left int64) {
	var items []store.Item
	for {
		st := s.Stats()
		if int64(st.Cursors[0].LagBytes) <= left {
			if st.Bytes < left+4<<20 {
				return
			}
			<-time.After(10 * time.Millisecond)
			continue
		}
		var err error
		if items, err = c.Read(b.Context(), items[:0], 4096, 2<<20); err != nil {
			b.Fatal(err)
		}
		c.Ack(items[len(items)-1].Position)
	}
}
