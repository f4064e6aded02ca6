package scheduler_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
)

// instant is a poll that takes no time. It ends the benchmark's lane after so many
// rounds.
type instant struct {
	left int
	stop context.CancelFunc
}

func (i *instant) Begin(time.Time) {}

func (i *instant) Step(_ context.Context, t *scheduler.Turn) (bool, error) {
	t.Sent, t.Took = true, time.Microsecond
	return false, nil
}

func (i *instant) End(error) func(context.Context) {
	if i.left--; i.left <= 0 {
		i.stop()
	}
	return nil
}

// BenchmarkLane is what a lane itself needs for a poll of one transaction.
func BenchmarkLane(b *testing.B) {
	for _, c := range []struct{ devices, transactions int }{{1, 1}, {32, 1}, {247, 1}, {1, 8}, {32, 8}} {
		b.Run(fmt.Sprintf("devices=%d/transactions=%d", c.devices, c.transactions), func(b *testing.B) {
			ctx, stop := context.WithCancel(b.Context())
			task := &instant{left: b.N, stop: stop}
			var polls []scheduler.Poll
			for i := range c.devices {
				polls = append(polls, scheduler.Poll{Device: fmt.Sprint(i), Every: time.Microsecond, Task: task})
			}
			cfg := fixed()
			cfg.Transactions = c.transactions
			lane, err := scheduler.NewLane("line", &fakeLink{}, polls, cfg, scheduler.NewShared(scheduler.SharedConfig{}), quiet)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			if err := lane.Run(ctx); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkIdleLane is what a lane with one device needs while nothing is due.
func BenchmarkIdleLane(b *testing.B) {
	const lanes = 1000
	shared := scheduler.NewShared(scheduler.SharedConfig{MaxOpening: lanes})
	for b.Loop() {
		ctx, stop := context.WithCancel(b.Context())
		heap, stacks := memory()
		done := make(chan error)
		for i := range lanes {
			name := fmt.Sprint("line-", i)
			task := &instant{left: 1 << 30}
			cfg := fixed()
			cfg.Phase = 0.5
			lane, err := scheduler.NewLane(name, &fakeLink{}, []scheduler.Poll{{Device: name, Name: "p", Every: time.Hour, Task: task}}, cfg, shared, quiet)
			if err != nil {
				b.Fatal(err)
			}
			go func() { done <- lane.Run(ctx) }()
			for lane.Status().State != scheduler.Up {
				runtime.Gosched()
			}
		}
		nowHeap, nowStacks := memory()
		b.ReportMetric(float64(nowHeap-heap)/lanes, "heap-B/lane")
		b.ReportMetric(float64(nowStacks-stacks)/lanes, "stack-B/lane")
		stop()
		for range lanes {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
}

// memory is what the heap and all stacks take.
func memory() (heap, stacks int64) {
	for range 3 { // stacks shrink by half each time
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), int64(m.StackInuse)
}
