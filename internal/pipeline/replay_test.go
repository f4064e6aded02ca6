package pipeline_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// fakeQueue browses its items up to a position, whatever else is asked for.
type fakeQueue struct {
	items []store.Item
	asked store.Query
}

func (q *fakeQueue) Browse(_ context.Context, query store.Query) iter.Seq2[store.Item, error] {
	q.asked = query
	return func(yield func(store.Item, error) bool) {
		for _, item := range q.items {
			if item.Position <= query.To && !yield(item, nil) {
				return
			}
		}
	}
}

type place uint64

func (p place) Acked() uint64 { return uint64(p) }

// replayer runs one for as long as the test does.
func replayer(t *testing.T, queue pipeline.Browser, at pipeline.Place, u pipeline.Sender) *pipeline.Replayer {
	t.Helper()
	q := pipeline.NewQuarantine(filepath.Join(t.TempDir(), "quarantine.jsonl"))
	p := pipeline.NewPump("all/out", "gw", nil, u, q, nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	r := pipeline.NewReplayer(p, queue, at, func(key store.SourceKey) bool { return key.Device != "not ours" })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

func TestAReplaySendsAgainWhatWasDeliveredMarkedAndAtItsRate(t *testing.T) {
	in := items(t, 1000)
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQueue{items: in}
		u := &fakeUpstream{}
		var last time.Time
		u.judge = func(batch []record.Record) error {
			for i := range batch {
				if !batch[i].Resent || !strings.Contains(string(batch[i].AppendJSON(nil)), `"resent":true`) {
					t.Errorf("%s", batch[i].AppendJSON(nil))
				}
			}
			last = time.Now()
			return nil
		}
		r := replayer(t, q, place(900), u)
		began := time.Now()
		since, until := time.Unix(0, 0), time.Unix(2, 0)
		if err := r.Start(pipeline.Replay{Since: since, Until: until, Rate: 100, Match: func(k store.SourceKey) bool { return k.Device == "d" }}); err != nil {
			t.Fatal(err)
		}
		if err := r.Start(pipeline.Replay{}); !errors.Is(err, pipeline.ErrReplaying) {
			t.Error(err)
		}
		<-time.After(time.Minute)
		if strings.Join(u.taken, " ") != numbers(1, 900) {
			t.Errorf("taken %v", u.taken)
		}
		if took := last.Sub(began); took < 8*time.Second || took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if s := r.Status(); s.State != "done" || s.Sent != 900 || s.Position != 900 || s.To != 900 || s.Ended.IsZero() {
			t.Errorf("%+v", s)
		}
		if q.asked.Since != since || q.asked.Until != until {
			t.Errorf("asked for %+v", q.asked)
		}
		for device, want := range map[string]bool{"d": true, "not ours": false, "not asked for": false} {
			if q.asked.Match(store.SourceKey{Device: device}) != want {
				t.Error(device)
			}
		}
		if err := r.Start(pipeline.Replay{}); err != nil {
			t.Error(err)
		}
		<-time.After(time.Minute)
		if s := r.Status(); s.State != "done" || s.Sent != 900 || s.Rate != pipeline.DefaultReplayRate {
			t.Errorf("the second: %+v", s)
		}
		if !q.asked.Match(store.SourceKey{Device: "d"}) || q.asked.Match(store.SourceKey{Agent: "?"}) {
			t.Error("what has lost its name is sent to nobody")
		}
	})
}

func TestAReplayWaitsForItsUpstreamAndCanBeStopped(t *testing.T) {
	in := items(t, 10)
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpstream{judge: func([]record.Record) error { return errors.New("away") }}
		r := replayer(t, &fakeQueue{items: in}, place(10), u)
		if err := r.Start(pipeline.Replay{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		if s := r.Status(); s.State != "running" || !strings.Contains(s.Reason, "away") || s.Sent != 0 {
			t.Errorf("%+v", s)
		}
		r.Stop()
		synctest.Wait()
		if s := r.Status(); s.State != "stopped" || s.Ended.IsZero() {
			t.Errorf("%+v", s)
		}
		r.Stop()
	})
}

func TestNothingDeliveredIsNothingToReplay(t *testing.T) {
	in := items(t, 10)
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpstream{}
		r := replayer(t, &fakeQueue{items: in}, place(0), u)
		if err := r.Start(pipeline.Replay{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := r.Status(); s.State != "done" || s.Sent != 0 || len(u.taken) > 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhatTheQueueKeepsCanBeReplayedByTime(t *testing.T) {
	s, err := store.Open(t.TempDir(), store.Config{MaxSize: 1 << 20, Keep: time.Hour}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = s.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ran
		_ = s.Close()
	}()
	cursor, err := s.Cursor(store.CursorConfig{Name: "all/out"})
	if err != nil {
		t.Fatal(err)
	}
	source, err := s.Source(store.SourceKey{Device: "d", Stream: "s"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		r := record.Record{Device: "d", Stream: "s"}
		if _, err := s.Append(ctx, store.Batch{Entries: []store.Entry{{Source: source, Time: time.Unix(int64(i+1), 0), Body: r.Append(nil)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := cursor.Read(ctx, nil, 100, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	cursor.Ack(got[len(got)-1].Position)
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	u := &fakeUpstream{}
	r := replayer(t, s, cursor, u)
	if err := r.Start(pipeline.Replay{Since: time.Unix(21, 0), Until: time.Unix(81, 0)}); err != nil {
		t.Fatal(err)
	}
	for r.Status().State == "running" {
		<-time.After(time.Millisecond)
	}
	if strings.Join(u.taken, " ") != numbers(21, 80) {
		t.Errorf("%+v %v", r.Status(), u.taken)
	}
}
