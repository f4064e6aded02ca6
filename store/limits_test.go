package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// small is a store that 250 records of 1,000 bytes fill.
func small(whenFull string) store.Config {
	return store.Config{MaxSize: 256 << 10, WhenFull: whenFull, CommitDelay: time.Millisecond}
}

func kilobyte(i int) string { return fmt.Sprint(i, " ", strings.Repeat("x", 1000)) }

func (b *bed) addTimes(source *store.Source, n int) {
	b.Helper()
	for i := range n {
		b.commit(store.Batch{Entries: []store.Entry{{Source: source, Time: time.Unix(int64(i+1), 0), Body: []byte(kilobyte(i + 1))}}})
	}
}

func TestAFullQueueBlocksAndGoesOnWhenThereIsRoom(t *testing.T) {
	b := newBed(t, small(store.Block))
	c := b.cursor(store.CursorConfig{Name: "all/out"})
	b.start()
	source := b.source("d")
	batch := store.Batch{Entries: []store.Entry{{Source: source, Body: []byte(kilobyte(0))}}}
	n := 0
	for ; ; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := b.Append(ctx, batch)
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "all/out") {
				t.Error(err)
			}
			break
		}
	}
	st := b.Stats()
	if n < 200 || st.Bytes > b.cfg.MaxSize || st.State != store.StateFull || !strings.Contains(st.Reason, "all/out") {
		t.Errorf("after %d records: %+v", n, st)
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.Append(t.Context(), batch)
		done <- err
	}()
	_, last := b.read(c, n)
	c.Ack(last)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.until("becoming ok", func() bool { return b.Stats().State == store.StateOK })
	if got, _ := b.read(c, 1); !strings.HasPrefix(got[0], fmt.Sprintf("d/s#%d ", n+1)) {
		t.Errorf("got %.20s", got[0])
	}
}

func TestABatchThatMustNotWaitIsRefusedWhereItWouldHave(t *testing.T) {
	b := newBed(t, small(store.Block))
	c := b.cursor(store.CursorConfig{})
	b.start()
	batch := store.Batch{Entries: []store.Entry{{Source: b.source("d"), Body: []byte(kilobyte(0))}}, NoWait: true}
	n := 0
	var commit *store.Commit
	for {
		accepted, err := b.Append(expiredContext(t), batch)
		if err == nil {
			commit = accepted
			n++
			continue
		}
		if !errors.Is(err, store.ErrFull) {
			t.Fatal(err)
		}
		if st := b.Stats(); st.State == store.StateFull {
			break
		}
	}
	if err := commit.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, last := b.read(c, n)
	c.Ack(last)
	b.until("room", func() bool {
		_, err := b.Append(t.Context(), batch)
		return err == nil
	})
}

func expiredContext(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestDropOldestMovesTheCursorThatLagsAndTellsItAlone(t *testing.T) {
	b := newBed(t, small(store.DropOldest))
	slow := b.cursor(store.CursorConfig{Name: "slow", Match: func(k store.SourceKey) bool { return k.Device != "b" }})
	fast := b.cursor(store.CursorConfig{Name: "fast"})
	b.start()
	const n = 400
	for i := range n {
		b.add(b.source("a"), kilobyte(i+1))
		b.add(b.source("b"), kilobyte(i+1))
		_, last := b.read(fast, 2)
		fast.Ack(last)
	}
	st := b.Stats()
	if st.Bytes > b.cfg.MaxSize || st.State != store.StateOK || len(st.Cursors[0].Dropped) != 0 {
		t.Errorf("%+v", st)
	}
	dropped := st.Cursors[1].Dropped
	if len(dropped) != 1 || dropped[0].Device != "a" {
		t.Fatalf("%+v", dropped)
	}
	lost := dropped[0].Records
	if st.Cursors[1].Lag != n-lost {
		t.Errorf("%d lost, lag %d", lost, st.Cursors[1].Lag)
	}
	for range 2 { // the gap stays until it is acknowledged
		b.reopen()
		slow = b.cursor(store.CursorConfig{Name: "slow", Match: func(k store.SourceKey) bool { return k.Device != "b" }})
		fast = b.cursor(store.CursorConfig{Name: "fast"})
		b.start()
		items, err := slow.Read(t.Context(), nil, 1, 1)
		if err != nil || len(items) != 1 {
			t.Fatal(items, err)
		}
		g := items[0].Gap
		if g == nil || g.From != 1 || g.To != lost || g.Count != lost || g.Reason != record.GapDropOldest || g.First.IsZero() || g.Last.IsZero() {
			t.Fatalf("%+v", items[0])
		}
		if k := items[0].Source.Key(); k.Device != "a" || k.Stream != record.GapStream || k.Epoch != b.Epoch() {
			t.Errorf("%+v", k)
		}
	}
	for i := lost + 1; i <= n; i++ {
		got, last := b.read(slow, 1)
		if !strings.HasPrefix(got[0], fmt.Sprintf("a/s#%d ", i)) {
			t.Errorf("record %d is %.20s", i, got[0])
		}
		slow.Ack(last)
	}
	b.nothing(slow)
	b.nothing(fast)
}

func TestACursorThatBlocksIsNotMovedByOneThatDrops(t *testing.T) {
	b := newBed(t, small(store.DropOldest))
	b.cursor(store.CursorConfig{Name: "drops"})
	blocks := b.cursor(store.CursorConfig{Name: "blocks", WhenFull: store.Block})
	b.start()
	n := 0
	for ; ; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := b.Append(ctx, store.Batch{Entries: []store.Entry{{Source: b.source("d"), Body: []byte(kilobyte(n + 1))}}})
		cancel()
		if err != nil {
			break
		}
	}
	if st := b.Stats(); st.State != store.StateFull || strings.Contains(st.Reason, "drops,") && !strings.Contains(st.Reason, "blocks") {
		t.Errorf("%+v", st)
	}
	got, last := b.read(blocks, n)
	if !strings.HasPrefix(got[0], "d/s#1 ") {
		t.Errorf("got %.20s", got[0])
	}
	blocks.Ack(last)
	for range 300 {
		b.add(b.source("d"), kilobyte(0))
		_, last := b.read(blocks, 1)
		blocks.Ack(last)
	}
	if st := b.Stats(); len(st.Cursors[1].Dropped) != 1 || len(st.Cursors[0].Dropped) != 0 {
		t.Errorf("%+v", st.Cursors)
	}
}

func TestWhatIsHandedOutIsNotDropped(t *testing.T) {
	b := newBed(t, small(store.DropOldest))
	c := b.cursor(store.CursorConfig{})
	b.start()
	b.addTimes(b.source("d"), 20)
	_, last := b.read(c, 10)
	b.addTimes(b.source("d"), 500)
	c.Ack(last)
	seq := uint64(10)
	for seq < 520 {
		items, err := c.Read(t.Context(), nil, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			if item.Gap != nil {
				if item.Gap.From != seq+1 || item.Gap.Count != item.Gap.To-item.Gap.From+1 {
					t.Fatalf("after %d: %+v", seq, item.Gap)
				}
				seq = item.Gap.To
				continue
			}
			if seq++; item.Seq != seq {
				t.Fatalf("seq %d, want %d", item.Seq, seq)
			}
		}
		c.Ack(items[len(items)-1].Position)
	}
	if n := b.Stats().Cursors[0].Dropped[0].Records; n < 200 {
		t.Errorf("%d dropped", n)
	}
}

func TestWhatIsHandedOutLeavesRoomForWhatComes(t *testing.T) {
	cfg := small(store.DropOldest)
	cfg.MaxRecords = 200
	b := newBed(t, cfg)
	cursors := []*store.Cursor{
		b.cursor(store.CursorConfig{Name: "all"}),
		b.cursor(store.CursorConfig{Name: "some", Match: func(k store.SourceKey) bool { return k.Device == "a" }}),
	}
	b.start()
	for i := range 600 { // nobody acknowledges any of them
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := b.Append(ctx, store.Batch{Entries: []store.Entry{{Source: b.source([]string{"a", "b", "c"}[i%3]), Body: []byte("x")}}})
		cancel()
		if err != nil {
			t.Fatalf("record %d has no room: %v", i, err)
		}
		if i%10 != 9 {
			continue
		}
		for _, c := range cursors {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, err := c.Read(ctx, nil, 50, 1<<20)
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
	}
}

// Whatever is read, acknowledged, rewound and restarted while the oldest records
// go: each record is either delivered, in order, or announced.
func TestEachRecordIsDeliveredOrAnnounced(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		clock := newClock()
		b := &bed{TB: t, dir: t.TempDir(), cfg: small(store.DropOldest)}
		b.cfg.MaxRecords = rapid.SampledFrom([]int64{0, 200}).Draw(r, "max_records")
		b.cfg.Keep = rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(r, "keep")
		b.cfg.Clock = clock
		devices := []string{"a", "b", "c"}
		type follower struct {
			*store.Cursor
			cfg    store.CursorConfig
			next   map[string]uint64 // number expected next, by device
			flight []store.Item
			acked  map[string]uint64
		}
		takesAll := func(store.SourceKey) bool { return true }
		takesA := func(k store.SourceKey) bool { return k.Device == "a" }
		followers := []*follower{{cfg: store.CursorConfig{Name: "1", Match: takesAll}}, {cfg: store.CursorConfig{Name: "2", Match: takesA, MaxAge: time.Minute}}}
		stop := func() {}
		open := func() {
			stop()
			b.open()
			for _, f := range followers {
				f.Cursor = b.cursor(f.cfg)
				if f.acked == nil {
					f.acked = map[string]uint64{}
				}
				f.flight, f.next = nil, clone(f.acked)
			}
			stop = run(t, b.Store)
		}
		open()
		defer func() { stop() }()
		pick := func(r *rapid.T) *follower { return rapid.SampledFrom(followers).Draw(r, "follower") }
		seen := func(item store.Item, next map[string]uint64) {
			device := item.Source.Key().Device
			from, to := item.Seq, item.Seq
			if item.Gap != nil {
				from, to = item.Gap.From, item.Gap.To
				if item.Gap.Count != to-from+1 {
					r.Fatalf("%s", text(item))
				}
			}
			if from != next[device]+1 {
				r.Fatalf("after %s#%d comes %.40s", device, next[device], text(item))
			}
			next[device] = to
		}
		read := func(r *rapid.T) {
			f := pick(r)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			defer cancel()
			items, err := f.Read(ctx, nil, rapid.IntRange(1, 50).Draw(r, "n"), 1<<20)
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				r.Fatal(err)
			}
			for _, item := range items {
				seen(item, f.next)
				item.Body = nil
				f.flight = append(f.flight, item)
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			"append": func(r *rapid.T) {
				var batch store.Batch
				for range rapid.IntRange(1, 40).Draw(r, "n") {
					device := rapid.SampledFrom(devices).Draw(r, "device")
					batch.Entries = append(batch.Entries, store.Entry{
						Source: b.source(device), Body: make([]byte, rapid.IntRange(0, 2000).Draw(r, "size")),
					})
				}
				b.commit(batch)
			},
			"read": read, "read more": read,
			"ack": func(r *rapid.T) {
				f := pick(r)
				if len(f.flight) == 0 {
					return
				}
				n := rapid.IntRange(1, len(f.flight)).Draw(r, "n")
				for _, item := range f.flight[:n] {
					seen(item, f.acked)
				}
				f.Ack(f.flight[n-1].Position)
				f.flight = f.flight[n:]
			},
			"rewind": func(r *rapid.T) {
				f := pick(r)
				f.Rewind()
				f.flight, f.next = nil, clone(f.acked)
			},
			"reopen": func(*rapid.T) { open() },
			"time passes": func(r *rapid.T) {
				clock.pass(time.Duration(rapid.IntRange(0, 40).Draw(r, "seconds")) * time.Second)
				if err := b.Flush(t.Context()); err != nil {
					r.Fatal(err)
				}
			},
			"": func(r *rapid.T) {
				if st := b.Stats(); st.Bytes > st.MaxBytes || st.MaxRecords > 0 && st.Records > uint64(st.MaxRecords) {
					r.Fatalf("%+v", st)
				}
			},
		})
	})
}

func clone(m map[string]uint64) map[string]uint64 {
	c := make(map[string]uint64, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}
