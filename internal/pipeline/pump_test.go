package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCursor hands out its items in batches of at most size.
type fakeCursor struct {
	items []store.Item
	size  int
	fail  []error // of the first reads
	acked uint64
}

var _ pipeline.Cursor = (*fakeCursor)(nil)

func (c *fakeCursor) Read(ctx context.Context, dst []store.Item, maxRecords, _ int) ([]store.Item, error) {
	if len(c.fail) > 0 {
		err := c.fail[0]
		c.fail = c.fail[1:]
		return dst, err
	}
	n := min(len(c.items), c.size, maxRecords)
	if n == 0 {
		<-ctx.Done()
		return dst, ctx.Err()
	}
	dst = append(dst, c.items[:n]...)
	c.items = c.items[n:]
	return dst, nil
}

func (c *fakeCursor) Ack(position uint64) { c.acked = position }

// fakeUpstream keeps what it takes, as text.
type fakeUpstream struct {
	mu    sync.Mutex
	taken []string
	judge func(batch []record.Record) error
}

var _ pipeline.Sender = (*fakeUpstream)(nil)

func (u *fakeUpstream) Send(_ context.Context, batch []record.Record) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.judge != nil {
		if err := u.judge(batch); err != nil {
			return err
		}
	}
	for i := range batch {
		u.taken = append(u.taken, fmt.Sprintf("%s/%d", batch[i].Device, batch[i].Seq))
	}
	return nil
}

func sources(t *testing.T) (*store.Store, *store.Source) {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Config{MaxSize: 1 << 20, WhenFull: "block"}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	source, err := s.Source(store.SourceKey{Device: "d", Stream: "s"})
	if err != nil {
		t.Fatal(err)
	}
	return s, source
}

func items(t *testing.T, n int) []store.Item {
	s, source := sources(t)
	t.Cleanup(func() { _ = s.Close() })
	out := make([]store.Item, n)
	for i := range out {
		r := record.Record{Device: "d", Stream: "s", Points: []record.Point{{Name: "n", Value: record.Int(int64(i))}}}
		out[i] = store.Item{Position: uint64(i + 1), Source: source, Seq: uint64(i + 1), Time: time.Unix(1, 0), Body: r.Append(nil)}
	}
	return out
}

// pump runs one for d of the bubble's time.
func pump(t *testing.T, c pipeline.Cursor, u pipeline.Sender, d time.Duration) (*pipeline.Pump, *pipeline.Quarantine) {
	t.Helper()
	q := pipeline.NewQuarantine(filepath.Join(t.TempDir(), "quarantine.jsonl"))
	return pumpWith(t, oneBoot{}, q, c, u, d), q
}

func pumpKnowing(t *testing.T, times pipeline.Times, c pipeline.Cursor, u pipeline.Sender, d time.Duration) *pipeline.Pump {
	t.Helper()
	return pumpWith(t, times, pipeline.NewQuarantine(filepath.Join(t.TempDir(), "quarantine.jsonl")), c, u, d)
}

func pumpWith(t *testing.T, times pipeline.Times, q *pipeline.Quarantine, c pipeline.Cursor, u pipeline.Sender, d time.Duration) *pipeline.Pump {
	t.Helper()
	p := pipeline.NewPump("all/out", "gw", c, u, q, times, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

func numbers(from, to int) string {
	var s []string
	for i := from; i <= to; i++ {
		s = append(s, fmt.Sprint("d/", i))
	}
	return strings.Join(s, " ")
}

func TestTheCursorMovesOnlyPastWhatTheUpstreamConfirmed(t *testing.T) {
	in := items(t, 10)
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCursor{items: in, size: 4}
		u := &fakeUpstream{}
		u.judge = func(batch []record.Record) error {
			if batch[0].Seq > 4 {
				return errors.New("away")
			}
			return nil
		}
		p, _ := pump(t, c, u, time.Minute)
		if c.acked != 4 || strings.Join(u.taken, " ") != numbers(1, 4) {
			t.Errorf("acked %d, taken %v", c.acked, u.taken)
		}
		if s := p.Status(); s.Retries < 3 || !strings.Contains(s.Reason, "away") {
			t.Errorf("status %+v", s)
		}
	})
}

func TestABatchThatFailedIsSentAgainInOrder(t *testing.T) {
	in := items(t, 10)
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCursor{items: in, size: 4}
		tries := 0
		u := &fakeUpstream{judge: func([]record.Record) error {
			if tries++; tries%3 != 0 {
				return errors.New("busy")
			}
			return nil
		}}
		pump(t, c, u, time.Minute)
		if c.acked != 10 || strings.Join(u.taken, " ") != numbers(1, 10) {
			t.Errorf("acked %d, taken %v", c.acked, u.taken)
		}
	})
}

func TestARefusedRecordIsSetAsideAndTheRestFlows(t *testing.T) {
	in := items(t, 10)
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCursor{items: in, size: 10}
		u := &fakeUpstream{judge: func(batch []record.Record) error {
			for i := range batch {
				if batch[i].Seq == 7 {
					return fmt.Errorf("too long: %w", upstream.ErrRefused)
				}
			}
			return nil
		}}
		p, q := pump(t, c, u, time.Minute)
		if got, want := strings.Join(u.taken, " "), numbers(1, 6)+" "+numbers(8, 10); got != want || c.acked != 10 {
			t.Errorf("acked %d, taken %v", c.acked, got)
		}
		kept, err := os.ReadFile(q.Path())
		if err != nil || !strings.Contains(string(kept), `"seq":7`) || !strings.Contains(string(kept), "too long") {
			t.Errorf("quarantine: %s %v", kept, err)
		}
		if s := p.Status(); s.Quarantined != 1 || s.Sent != 9 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestARecordThatCannotBeReadIsSetAside(t *testing.T) {
	in := items(t, 3)
	in[1].Body = []byte{0xff}
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpstream{}
		p, _ := pump(t, &fakeCursor{items: in, size: 10}, u, time.Minute)
		if got := strings.Join(u.taken, " "); got != "d/1 d/3" || p.Status().Quarantined != 1 {
			t.Errorf("taken %s, status %+v", got, p.Status())
		}
	})
}

func TestAGapIsDeliveredAsARecordOfItsDevice(t *testing.T) {
	in := items(t, 1)
	in[0].Body, in[0].Gap = nil, &record.Gap{From: 1, To: 3, Count: 3, Reason: record.GapDropOldest}
	synctest.Test(t, func(t *testing.T) {
		var got string
		u := &fakeUpstream{judge: func(batch []record.Record) error {
			got = string(batch[0].AppendJSON(nil))
			return nil
		}}
		pump(t, &fakeCursor{items: in, size: 1}, u, time.Second)
		if !strings.Contains(got, `"device":"d","stream":"_gap"`) || !strings.Contains(got, `"from":1,"to":3,"count":3,"reason":"drop-oldest"`) {
			t.Error(got)
		}
	})
}

// oneBoot knows the time of one boot, up to some time after it.
type oneBoot struct {
	boot  record.Boot
	began time.Time
	until time.Duration
}

func (o oneBoot) Correct(boot record.Boot, up time.Duration) (time.Time, bool) {
	return o.began.Add(up), boot == o.boot && up <= o.until
}

func TestATimeThatIsKnownBetterIsCorrectedAndBothAreKept(t *testing.T) {
	began := time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)
	recorded := time.Unix(100, 0).UTC()
	stamps := []record.Stamp{
		{Time: recorded, Boot: 1, Up: time.Minute},
		{Time: recorded, Boot: 1, Up: 2 * time.Hour}, // not known yet
		{Time: recorded, Boot: 2, Up: time.Minute},   // another's, or forgotten
		{Time: recorded, Clock: record.ClockSynced},
		{Time: recorded, Clock: record.ClockSynced, Boot: 1, Up: time.Minute}, // a device that is sure
		{Time: recorded}, // a device that is not, and says no more
	}
	in := items(t, len(stamps))
	for i, s := range stamps {
		r := record.Record{Device: "d", Stream: "s", Payload: []byte("x")}
		r.At(s)
		in[i].Body = r.Append(nil)
	}
	synctest.Test(t, func(t *testing.T) {
		var got []record.Record
		u := &fakeUpstream{judge: func(batch []record.Record) error {
			got = append(got, batch...)
			return nil
		}}
		p := pumpKnowing(t, oneBoot{1, began, time.Hour}, &fakeCursor{items: in, size: 10}, u, time.Second)
		for i := range got {
			r, want := &got[i], record.Record{}
			want.At(stamps[i])
			if i == 0 {
				want.Correct(began.Add(time.Minute))
			}
			if !r.Time.Equal(want.Time) || r.Clock != want.Clock || !r.TimeRecorded.Equal(want.TimeRecorded) || r.Boot != want.Boot || r.Up != want.Up {
				t.Errorf("%d: %s", i, r.AppendJSON(nil))
			}
		}
		if n := p.Status().Corrected; n != 1 || len(got) != len(stamps) {
			t.Errorf("%d records, %d corrected", len(got), n)
		}
	})
}

func TestAQueueThatCannotBeReadIsTriedAgain(t *testing.T) {
	in := items(t, 3)
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpstream{}
		pump(t, &fakeCursor{items: in, size: 3, fail: []error{io.ErrUnexpectedEOF, io.ErrUnexpectedEOF}}, u, time.Minute)
		if strings.Join(u.taken, " ") != numbers(1, 3) {
			t.Errorf("taken %v", u.taken)
		}
	})
}
