package intake_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/intake"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// fakeQueue takes batches, or blocks like a full one.
type fakeQueue struct {
	full    bool
	batches []store.Batch
}

var _ intake.Queue = (*fakeQueue)(nil)

func (q *fakeQueue) Source(store.SourceKey) (*store.Source, error) { return new(store.Source), nil }

func (q *fakeQueue) Append(ctx context.Context, b store.Batch) (*store.Commit, error) {
	if q.full {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	q.batches = append(q.batches, b)
	return new(store.Commit), nil
}

func reading() record.Record {
	return record.Record{Device: "scale-1", Stream: "weight", Time: time.Now(), Points: []record.Point{{Name: "n", Value: record.Int(1)}}}
}

func TestAPolledReadingWaitsForRoomAndForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQueue{}
		sink := intake.New(q, slog.New(slog.DiscardHandler)).Polled()
		if err := sink.Deliver(t.Context(), reading()); err != nil || len(q.batches) != 1 || !q.batches[0].Delay {
			t.Errorf("%v, %+v", err, q.batches)
		}
		q.full = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		if err := sink.Deliver(ctx, reading()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Hour {
			t.Errorf("gave up after %v with %v", time.Since(start), err)
		}
	})
}

func TestWhatADeviceSaysIntoAFullQueueIsCountedAndAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQueue{full: true}
		sink := intake.New(q, slog.New(slog.DiscardHandler)).Pushed("scale-1", true)
		for range 3 {
			start := time.Now()
			if err := sink.Deliver(t.Context(), reading()); err == nil || time.Since(start) > time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		}
		q.full = false
		if err := sink.Deliver(t.Context(), reading()); err != nil {
			t.Fatal(err)
		}
		entries := q.batches[0].Entries
		if len(entries) != 2 || entries[0].Gap == nil || entries[0].Gap.Count != 3 || entries[0].Gap.Reason != record.GapOverload || len(entries[1].Body) == 0 {
			t.Errorf("%+v", entries)
		}
		if err := sink.Deliver(t.Context(), reading()); err != nil || len(q.batches[1].Entries) != 1 || sink.Lost() != 3 {
			t.Errorf("%v, announced again: %+v", err, q.batches[1].Entries)
		}
	})
}

func TestAGapIsAnnouncedAtTheStopToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQueue{full: true}
		sink := intake.New(q, slog.New(slog.DiscardHandler)).Pushed("scale-1", true)
		_ = sink.Deliver(t.Context(), reading()) // is lost
		q.full = false
		sink.Flush(t.Context())
		sink.Flush(t.Context())
		if len(q.batches) != 1 || q.batches[0].Entries[0].Gap.Count != 1 {
			t.Errorf("%+v", q.batches)
		}
	})
}

func TestASyncedReadingIsDeliveredOnceItIsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQueue{}
		sink := intake.New(q, slog.New(slog.DiscardHandler)).Synced()
		if sink.Offer(reading()) {
			t.Error("it was taken without waiting for the disk")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		// The fake's commit never ends.
		if err := sink.Deliver(ctx, reading()); !errors.Is(err, context.DeadlineExceeded) || len(q.batches) != 1 || q.batches[0].Delay {
			t.Errorf("%v, %+v", err, q.batches)
		}
	})
}
