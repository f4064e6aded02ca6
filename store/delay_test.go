package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

// bubble runs a test in time of its own. The store lives and ends inside of it.
func bubble(t *testing.T, cfg store.Config, test func(*bed)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{TB: t, dir: dir, cfg: cfg}
		b.open()
		test(b)
		b.stop()
	})
}

func TestAPollWaitsForCompanyAndNobodyElseDoes(t *testing.T) {
	bubble(t, store.Config{MaxSize: 8 << 20, CommitDelay: time.Second}, func(b *bed) {
		b.start()
		start := time.Now()
		source := b.source("d")
		poll := func() *store.Commit {
			c, err := b.Append(b.Context(), store.Batch{Delay: true, Entries: []store.Entry{{Source: source}}})
			if err != nil {
				b.Fatal(err)
			}
			return c
		}
		first := poll()
		after(300 * time.Millisecond)
		if second := poll(); second != first {
			b.Error("two polls are not in one commit")
		}
		_ = first.Wait(b.Context())
		if took := time.Since(start); took != time.Second {
			b.Errorf("the commit came after %v", took)
		}
		third := poll()
		after(100 * time.Millisecond)
		start = time.Now()
		b.add(source, "urgent")
		select {
		case <-third.Done():
		default:
			b.Error("the poll was not taken along")
		}
		if took := time.Since(start); took != 0 {
			b.Errorf("somebody was kept waiting for %v", took)
		}
	})
}

func TestAcknowledgementsAloneAreWrittenWithinTheDelay(t *testing.T) {
	bubble(t, store.Config{MaxSize: 8 << 20, CommitDelay: time.Second}, func(b *bed) {
		c := b.cursor(store.CursorConfig{})
		b.start()
		b.add(b.source("d"), "1")
		c.Ack(b.wants(c, "d/s#1 1"))
		commits := b.Stats().Commits
		after(1001 * time.Millisecond)
		if n := b.Stats().Commits; n != commits+1 {
			b.Errorf("%d commits", n-commits)
		}
		after(time.Hour)
		if n := b.Stats().Commits; n != commits+1 {
			b.Errorf("%d commits, and nothing to write", n-commits)
		}
	})
}

// after waits in the bubble's time.
func after(d time.Duration) { <-time.After(d) }

func TestATrickleWritesLessThanThreeGigabytesADay(t *testing.T) {
	const (
		devices = 10
		period  = time.Second
		polls   = 600
		limit   = 3e9
	)
	for _, delivered := range []bool{true, false} {
		t.Run(fmt.Sprintf("delivered %v", delivered), func(t *testing.T) {
			bubble(t, store.Config{MaxSize: 64 << 20, CommitDelay: time.Second}, func(b *bed) {
				c := b.cursor(store.CursorConfig{})
				b.start()
				ctx, cancel := context.WithCancel(b.Context())
				var reader sync.WaitGroup
				if delivered {
					reader.Go(func() { drain(ctx, c) })
				}
				var lines sync.WaitGroup
				start := time.Now()
				for i := range devices {
					lines.Go(func() {
						source := b.source(fmt.Sprint("device-", i))
						after(period * time.Duration(i) / devices)
						for range polls {
							_, err := b.Append(ctx, store.Batch{Delay: true, Entries: []store.Entry{{Source: source, Time: time.Now(), Body: make([]byte, 256)}}})
							if err != nil {
								b.Error(err)
							}
							after(period)
						}
					})
				}
				lines.Wait()
				cancel()
				reader.Wait()
				st := b.Stats()
				day := float64(st.Written) / time.Since(start).Hours() * 24
				b.Logf("%.2f GB a day, %d bytes a commit, %d commits for %d records", day/1e9, st.Written/st.Commits, st.Commits, st.Appended)
				if day > limit || st.Appended < devices*(polls-2) {
					b.Errorf("%.2f GB a day: %+v", day/1e9, st)
				}
			})
		})
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	bubble(t, store.Config{MaxSize: 8 << 20}, func(b *bed) {
		c := b.cursor(store.CursorConfig{})
		b.start()
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := c.Read(ctx, nil, 1, 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			b.Error(err, time.Since(start))
		}
	})
}
