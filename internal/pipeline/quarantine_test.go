package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/record"
)

func newQuarantine(t *testing.T) *pipeline.Quarantine {
	t.Helper()
	return pipeline.NewQuarantine(filepath.Join(t.TempDir(), pipeline.QuarantineName))
}

// setAside adds n entries of a route.
func setAside(t *testing.T, q *pipeline.Quarantine, route string, n int) {
	t.Helper()
	for i := range n {
		r := record.Record{Agent: "gw", Epoch: 1, Device: "d", Stream: "s", Seq: uint64(i + 1), Time: time.Unix(int64(i), 0), Points: []record.Point{{Name: "v", Value: record.Float32(1)}}}
		if err := q.Add(route, &r, errors.New("too long")); err != nil {
			t.Fatal(err)
		}
	}
}

// all entries of a quarantine, a few at a time.
func all(t *testing.T, q *pipeline.Quarantine) (list []pipeline.Quarantined) {
	t.Helper()
	for from := int64(0); ; {
		p, err := q.Page(from, 3)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p.Entries...)
		if from = p.Next; from == 0 {
			return list
		}
	}
}

func TestTheQuarantineIsListedInPagesAndCounted(t *testing.T) {
	q := newQuarantine(t)
	if s := q.Stats(); s.Entries != 0 || s.MaxBytes != pipeline.MaxQuarantine {
		t.Errorf("%+v", s)
	}
	setAside(t, q, "all/cloud", 7)
	list := all(t, q)
	if len(list) != 7 || list[6].Route != "all/cloud" || list[6].Reason != "too long" || list[0].ID == list[1].ID || list[0].ID == "" {
		t.Errorf("%+v", list)
	}
	if !strings.Contains(string(list[3].Record), `"seq":4`) || !strings.Contains(string(list[3].Record), `"types":{"v":"float32"}`) {
		t.Errorf("%s", list[3].Record)
	}
	info, err := os.Stat(q.Path())
	if err != nil {
		t.Fatal(err)
	}
	again := pipeline.NewQuarantine(q.Path())
	if s := q.Stats(); s.Entries != 7 || s.Bytes != info.Size() || again.Stats() != s {
		t.Errorf("%+v and %+v, the file has %d bytes", s, again.Stats(), info.Size())
	}
}

func TestEntriesAreDeletedByIDOrAllTogether(t *testing.T) {
	q := newQuarantine(t)
	setAside(t, q, "all/cloud", 5)
	list := all(t, q)
	if n, err := q.Delete([]string{list[1].ID, list[3].ID, "none"}); n != 2 || err != nil {
		t.Error(n, err)
	}
	if left := all(t, q); len(left) != 3 || left[1].ID != list[2].ID || q.Stats().Entries != 3 {
		t.Errorf("%+v", left)
	}
	if n, err := q.Delete(nil); n != 3 || err != nil || q.Stats().Entries != 0 || len(all(t, q)) != 0 {
		t.Error(n, err, q.Stats())
	}
	setAside(t, q, "all/cloud", 1)
	if entries, err := os.ReadDir(filepath.Dir(q.Path())); err != nil || len(entries) != 1 || len(all(t, q)) != 1 {
		t.Error(entries, err)
	}
}

func TestATornLineSpoilsNoOther(t *testing.T) {
	q := newQuarantine(t)
	setAside(t, q, "all/cloud", 2)
	text, err := os.ReadFile(q.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(q.Path(), text[:len(text)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	q = pipeline.NewQuarantine(q.Path())
	setAside(t, q, "all/cloud", 1)
	list := all(t, q)
	if len(list) != 3 || list[0].Damaged || !list[1].Damaged || list[2].Damaged {
		t.Fatalf("%+v", list)
	}
	if n, err := q.Delete([]string{list[1].ID}); n != 1 || err != nil || len(all(t, q)) != 2 {
		t.Error(n, err)
	}
}

func TestEntriesOfBeforeThereWereIDsHaveOne(t *testing.T) {
	q := newQuarantine(t)
	const old = `{"at":"2026-11-22T05:08:00Z","route":"all/cloud","reason":"too long","record":{"agent":"gw","epoch":"0000000000000001","device":"d","stream":"s","seq":1,"part":0,"time":"2026-11-22T05:08:00Z","clock":"synced","quality":"good","values":{"v":1}}}`
	if err := os.WriteFile(q.Path(), []byte(old+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first, second := all(t, q), all(t, q)
	if len(first) != 1 || first[0].ID == "" || first[0].ID != second[0].ID {
		t.Errorf("%+v %+v", first, second)
	}
}

// retrier runs one in a bubble for d of its time.
func retrier(t *testing.T, q *pipeline.Quarantine, ids []string, d time.Duration, routes map[string]pipeline.Sender) *pipeline.Retrier {
	t.Helper()
	r := pipeline.NewRetrier(q, slog.New(slog.DiscardHandler))
	for name, to := range routes {
		r.Route(name, to)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	if _, err := r.Retry(ids); err != nil {
		t.Error(err)
	}
	running.Wait()
	return r
}

func TestWhatIsRetriedLeavesTheQuarantineOnceItIsDelivered(t *testing.T) {
	q := newQuarantine(t)
	setAside(t, q, "all/cloud", 600)
	setAside(t, q, "all/other", 1)
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpstream{}
		r := retrier(t, q, nil, time.Hour, map[string]pipeline.Sender{"all/cloud": u})
		if len(u.taken) != 600 || u.taken[0] != "d/1" || u.taken[599] != "d/600" {
			t.Errorf("taken %d", len(u.taken))
		}
		if left := all(t, q); len(left) != 1 || left[0].Route != "all/other" {
			t.Errorf("left %+v", left)
		}
		if s := r.RetryStatus(); s.Delivered != 600 || s.Waiting != 0 || s.Reason != "" {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhatIsRefusedAgainStaysWithTheNewReason(t *testing.T) {
	q := newQuarantine(t)
	setAside(t, q, "all/cloud", 5)
	before := all(t, q)
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpstream{judge: func(batch []record.Record) error {
			for i := range batch {
				if batch[i].Seq == 3 {
					return fmt.Errorf("still too long: %w", upstream.ErrRefused)
				}
			}
			return nil
		}}
		retrier(t, q, nil, time.Minute, map[string]pipeline.Sender{"all/cloud": u})
		left := all(t, q)
		if len(left) != 1 || left[0].ID != before[2].ID || !strings.Contains(left[0].Reason, "still") || left[0].Tries != 1 {
			t.Errorf("%+v", left)
		}
	})
}

func TestARouteThatCannotDeliverNowHoldsUpNoOther(t *testing.T) {
	q := newQuarantine(t)
	setAside(t, q, "all/away", 3)
	setAside(t, q, "all/cloud", 3)
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		away := &fakeUpstream{judge: func([]record.Record) error {
			if tries++; tries < 3 {
				return errors.New("away")
			}
			return nil
		}}
		cloud := &fakeUpstream{}
		r := retrier(t, q, nil, time.Hour, map[string]pipeline.Sender{"all/away": away, "all/cloud": cloud})
		if len(away.taken) != 3 || len(cloud.taken) != 3 || len(all(t, q)) != 0 {
			t.Errorf("%v %v, %+v", away.taken, cloud.taken, r.RetryStatus())
		}
	})
}

func TestOnlyWhatIsAskedForIsRetried(t *testing.T) {
	q := newQuarantine(t)
	setAside(t, q, "all/cloud", 3)
	id := all(t, q)[1].ID
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpstream{}
		retrier(t, q, []string{id}, time.Minute, map[string]pipeline.Sender{"all/cloud": u})
		if strings.Join(u.taken, " ") != "d/2" || len(all(t, q)) != 2 {
			t.Errorf("%v", u.taken)
		}
	})
}

func TestARetryThatCannotBeSaysWhy(t *testing.T) {
	q := newQuarantine(t)
	setAside(t, q, "old/cloud", 1)
	r := pipeline.NewRetrier(q, slog.New(slog.DiscardHandler))
	if _, err := r.Retry([]string{"none"}); !errors.Is(err, pipeline.ErrNoEntry) {
		t.Error(err)
	}
	if _, err := r.Retry(nil); err == nil || !strings.Contains(err.Error(), "old/cloud, is not in the configuration any more") {
		t.Error(err)
	}
}

func TestARecordThatCanBeReadNowIsDeliveredAsItself(t *testing.T) {
	q := newQuarantine(t)
	inner := record.Record{Device: "d", Stream: "s", Points: []record.Point{{Name: "v", Value: record.Int(7)}}}
	r := record.Record{Agent: "gw", Epoch: 1, Device: "d", Stream: "s", Seq: 9, Time: time.Unix(9, 0), Quality: record.Bad, Payload: inner.Append(nil), ContentType: "application/protobuf"}
	if err := q.Add("all/cloud", &r, fmt.Errorf("%w: of a newer version", pipeline.ErrUnreadable)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var got string
		u := &fakeUpstream{judge: func(batch []record.Record) error {
			got = string(batch[0].AppendJSON(nil))
			return nil
		}}
		retrier(t, q, nil, time.Minute, map[string]pipeline.Sender{"all/cloud": u})
		if !strings.Contains(got, `"seq":9`) || !strings.Contains(got, `"values":{"v":7}`) || strings.Contains(got, "payload") {
			t.Error(got)
		}
	})
}
