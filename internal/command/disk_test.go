package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/clock"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
)

// worker is a line that does each job at once, in a goroutine of its own.
type worker struct{ done sync.WaitGroup }

func (w *worker) Ready() (ready bool, why string) { return true, "" }

func (w *worker) Submit(j scheduler.Job) error {
	w.done.Go(func() { do(j, nil) })
	return nil
}

// plant is a room that runs, over a store that runs.
type plant struct {
	*Room
	stop func()
}

func newPlant(t testing.TB, dir string) *plant {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(dir, store.Config{MaxSize: 8 << 20, CommitDelay: 20 * time.Millisecond}, log)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{}
	targets := make(map[string]Target)
	for i := range 10 {
		targets[fmt.Sprint("device-", i)] = Target{Line: w, Prepare: func(q Request) (Task, error) {
			answer := record.Record{Points: []record.Point{{Name: "p", Value: q.Value.Value}}}
			return &task{request: q, send: func(Request) error { return nil }, answer: answer}, nil
		}}
	}
	cfg := Config{Timeout: 30 * time.Second, MaxWaiting: 100, Max: 50000, MaxPayload: 1000, Keep: 24 * time.Hour}
	r, err := New(cfg, InStore(s.Mailbox()), targets, NewClock(clock.New()), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { _ = s.Run(context.Background()) })
	runs.Go(func() { _ = r.Run(ctx) })
	p := &plant{Room: r}
	p.stop = sync.OnceFunc(func() {
		cancel()
		w.done.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		runs.Wait()
	})
	t.Cleanup(func() { p.stop() })
	return p
}

func TestCommandsAreDoneAndRememberedInAStore(t *testing.T) {
	dir := t.TempDir()
	p := newPlant(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var callers sync.WaitGroup
	const each = 5
	for i := range 20 {
		callers.Go(func() {
			for n := range each {
				q := write(fmt.Sprint("device-", i%10), "p")
				q.Key, q.Value = fmt.Sprint("key-", i, "-", n), &Value{record.Int(int64(n))}
				c, err := p.Submit(ctx, q)
				if err == nil {
					c, err = p.Wait(ctx, c.ID)
				}
				if err != nil || c.State != Succeeded || c.Answer.Values["p"].Value != q.Value.Value {
					t.Errorf("%+v, %v", c, err)
				}
				p.List(Filter{Limit: 3})
				p.Stats()
			}
		})
	}
	callers.Wait()
	before := p.List(Filter{Limit: 1000})
	p.stop()
	if _, err := p.Submit(ctx, write("device-1", "p")); !errors.Is(err, ErrNotStored) {
		t.Error(err)
	}
	p = newPlant(t, dir)
	after := p.List(Filter{Limit: 1000})
	if len(before) != 20*each || len(after) != len(before) {
		t.Fatalf("%d before, %d after", len(before), len(after))
	}
	for i := range after {
		if after[i].ID != before[i].ID || after[i].State != Succeeded {
			t.Errorf("%+v was %+v", after[i], before[i])
		}
	}
}

// BenchmarkCommand is from Submit to an end that is on disk, over a device that
// answers at once.
func BenchmarkCommand(b *testing.B) {
	p := newPlant(b, b.TempDir())
	for b.Loop() {
		c, err := p.Submit(b.Context(), Request{Device: "device-1", Kind: Write, Point: "p", Value: &Value{record.Int(1)}})
		if err == nil {
			_, err = p.Wait(b.Context(), c.ID)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func TestTheMachinesClockGoesOnFromOneStartToTheNext(t *testing.T) {
	first, second := NewClock(clock.New()).Now(), NewClock(clock.New()).Now()
	passed, known := first.until(second)
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	if !known || passed < 0 || passed > time.Minute || first.Boot != strings.TrimSpace(string(bootID)) {
		t.Errorf("%+v, then %+v: %v %v", first, second, passed, known)
	}
	if first.Wall.IsZero() || first.Boot == "" {
		t.Errorf("%+v", first)
	}
}
