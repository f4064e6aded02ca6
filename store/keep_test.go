package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

func TestDeliveredRecordsAreKeptAndGiveWay(t *testing.T) {
	clock := newClock()
	cfg := small(store.Block)
	cfg.Keep, cfg.Clock = time.Hour, clock
	b := newBed(t, cfg)
	c := b.cursor(store.CursorConfig{})
	b.start()
	deliver := func(n int) {
		batch := store.Batch{}
		for i := range n {
			batch.Entries = append(batch.Entries, store.Entry{Source: b.source("d"), Body: []byte(kilobyte(i))})
		}
		b.commit(batch)
		_, last := b.read(c, n)
		c.Ack(last)
		b.flush()
	}
	for range 5 {
		deliver(10)
	}
	st := b.Stats()
	if st.Records != 50 || st.Kept != 50 || st.KeptBytes != st.Bytes || st.Cursors[0].Lag != 0 {
		t.Errorf("%+v", st)
	}
	b.reopen()
	c = b.cursor(store.CursorConfig{})
	b.start()
	if got := b.browse(store.Query{}); len(got) != 50 {
		t.Errorf("%d after a restart", len(got))
	}
	b.nothing(c)
	// Ten times as much as fits goes through without waiting for anything.
	for range 250 {
		deliver(10)
	}
	st = b.Stats()
	if st.State != store.StateOK || st.Bytes > st.MaxBytes || st.Kept < 100 || st.Kept != st.Records {
		t.Errorf("%+v", st)
	}
	clock.pass(2 * time.Hour)
	deliver(1)
	b.until("what is old goes", func() bool { deliver(1); return b.Stats().Kept < 20 })
}

func TestWhatIsKeptBlocksNobodyAndABacklogStillDoes(t *testing.T) {
	cfg := small(store.Block)
	cfg.Keep, cfg.Clock = time.Hour, newClock()
	b := newBed(t, cfg)
	c := b.cursor(store.CursorConfig{})
	b.start()
	b.addTimes(b.source("d"), 100)
	_, last := b.read(c, 100)
	c.Ack(last)
	n := 0
	for ; n < 1000; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := b.Append(ctx, store.Batch{Entries: []store.Entry{{Source: b.source("d"), Body: []byte(kilobyte(n))}}})
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	if st := b.Stats(); n < 200 || n == 1000 || st.State != store.StateFull || st.Kept != 0 {
		t.Errorf("%d fitted: %+v", n, st)
	}
}

func TestANewCursorCanBeginWithWhatIsKept(t *testing.T) {
	b := newBed(t, store.Config{Keep: time.Hour, Clock: newClock()})
	c := b.cursor(store.CursorConfig{})
	b.start()
	b.add(b.source("d"), "1", "2", "3")
	c.Ack(b.wants(c, "d/s#1 1", "d/s#2 2", "d/s#3 3"))
	b.flush()
	b.wants(b.cursor(store.CursorConfig{Name: "late"}), "d/s#1 1", "d/s#2 2", "d/s#3 3")
}

func TestTheNumberOfRecordsIsALimitLikeTheirSize(t *testing.T) {
	for _, whenFull := range []string{store.Block, store.DropOldest} {
		t.Run(whenFull, func(t *testing.T) {
			b := newBed(t, store.Config{WhenFull: whenFull, MaxRecords: 1000})
			c := b.cursor(store.CursorConfig{})
			b.start()
			n := 0
			for ; n < 3000; n++ {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				_, err := b.Append(ctx, store.Batch{Entries: []store.Entry{{Source: b.source("d"), Body: []byte("x")}}})
				cancel()
				if err == nil {
					continue
				}
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				if b.Stats().State == store.StateFull {
					break
				}
				n-- // the disk was slow
			}
			b.until("the last commit", func() bool { return b.Stats().Appended == uint64(n) })
			st := b.Stats()
			if st.Records > 1000 {
				t.Errorf("%d records", st.Records)
			}
			if whenFull == store.Block {
				if n < 900 || n > 1000 || st.State != store.StateFull {
					t.Errorf("%d taken: %+v", n, st)
				}
				_, last := b.read(c, 500)
				c.Ack(last)
				b.add(b.source("d"), "y")
				return
			}
			if n != 3000 || st.Records < 500 || st.Cursors[0].Dropped[0].Records < 2000 {
				t.Errorf("%d taken: %+v", n, st)
			}
		})
	}
	b := newBed(t, store.Config{MaxRecords: 1000})
	if _, err := b.Append(t.Context(), store.Batch{Entries: make([]store.Entry, 501)}); err == nil {
		t.Error("a batch of more than half was taken")
	}
}
