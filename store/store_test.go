package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

func TestMain(m *testing.M) {
	if childMain() || labMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

// bed is a store in a directory, that can be stopped and opened again.
type bed struct {
	testing.TB
	*store.Store
	dir  string
	cfg  store.Config
	stop func()
}

func newBed(t testing.TB, cfg store.Config) *bed {
	t.Helper()
	if cfg.MaxSize == 0 {
		cfg.MaxSize = 8 << 20
	}
	b := &bed{TB: t, dir: t.TempDir(), cfg: cfg}
	b.open()
	return b
}

// open opens the store without running it: cursors come first.
func (b *bed) open() {
	b.Helper()
	var err error
	if b.Store, err = store.Open(b.dir, b.cfg, quiet()); err != nil {
		b.Fatal(err)
	}
	b.stop = func() { _ = b.Close() }
	b.Cleanup(func() { b.stop() })
}

func (b *bed) start() { b.stop = run(b, b.Store) }

func (b *bed) reopen() {
	b.Helper()
	b.stop()
	b.open()
}

func (b *bed) source(device string) *store.Source {
	b.Helper()
	source, err := b.Source(store.SourceKey{Device: device, Stream: "s"})
	if err != nil {
		b.Fatal(err)
	}
	return source
}

func (b *bed) channel(name string) *store.Channel {
	b.Helper()
	c, err := b.Channel(store.ChannelKey{Sender: "peer", Epoch: 7, Channel: name})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func (b *bed) cursor(cfg store.CursorConfig) *store.Cursor {
	b.Helper()
	if cfg.Name == "" {
		cfg.Name = "c"
	}
	c, err := b.Cursor(cfg)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// add appends records with these bodies and waits until they are on disk.
func (b *bed) add(source *store.Source, bodies ...string) {
	b.Helper()
	batch := store.Batch{}
	for _, body := range bodies {
		batch.Entries = append(batch.Entries, store.Entry{Source: source, Time: time.Unix(1, 0), Body: []byte(body)})
	}
	b.commit(batch)
}

func (b *bed) commit(batch store.Batch) {
	b.Helper()
	c, err := b.Append(b.Context(), batch)
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// read reads exactly n items, as text.
func (b *bed) read(c *store.Cursor, n int) (list []string, last uint64) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	for len(list) < n {
		items, err := c.Read(ctx, nil, n-len(list), 1<<20)
		if err != nil {
			b.Fatalf("read %d of %d: %v", len(list), n, err)
		}
		for _, item := range items {
			list = append(list, text(item))
			last = item.Position
		}
	}
	return list, last
}

func text(item store.Item) string {
	key := item.Source.Key()
	if g := item.Gap; g != nil {
		return fmt.Sprintf("%s gap %d-%d n=%d %s", key.Device, g.From, g.To, g.Count, g.Reason)
	}
	return fmt.Sprintf("%s/%s#%d %s", key.Device, key.Stream, item.Seq, item.Body)
}

func (b *bed) wants(c *store.Cursor, want ...string) (last uint64) {
	b.Helper()
	got, last := b.read(c, len(want))
	for i := range want {
		if got[i] != want[i] {
			b.Fatalf("item %d is %q, want %q\nall: %q", i, got[i], want[i], got)
		}
	}
	return last
}

// nothing tells that there is nothing to read.
func (b *bed) nothing(c *store.Cursor) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Millisecond)
	defer cancel()
	if items, err := c.Read(ctx, nil, 1, 1); !errors.Is(err, context.DeadlineExceeded) {
		b.Fatalf("read %v, %v", items, err)
	}
}

// until waits for a condition.
func (b *bed) until(what string, ok func() bool) {
	b.Helper()
	timeout := time.After(10 * time.Second)
	for tick := time.Tick(2 * time.Millisecond); !ok(); {
		select {
		case <-tick:
		case <-timeout:
			b.Fatalf("%s did not happen: %+v", what, b.Stats())
		}
	}
}

func TestRecordsComeOutAsTheyWentIn(t *testing.T) {
	b := newBed(t, store.Config{})
	c := b.cursor(store.CursorConfig{})
	b.start()
	at := time.Unix(1700000000, 123456789).UTC()
	theirs, err := b.Source(store.SourceKey{Agent: "below", Epoch: 5, Device: "d", Stream: "s"})
	if err != nil {
		t.Fatal(err)
	}
	gap := &record.Gap{Count: 3, Reason: record.GapOverload, First: at, Last: at.Add(time.Second)}
	b.commit(store.Batch{Entries: []store.Entry{
		{Source: b.source("a"), Time: at, Body: []byte("x")},
		{Source: theirs, Time: at, Seq: 77, Part: 2, Body: []byte("y")},
		{Source: b.source("a"), Gap: gap},
		{Source: b.source("a")},
	}})
	items, err := c.Read(t.Context(), nil, 10, 1<<20)
	if err != nil || len(items) != 4 {
		t.Fatal(items, err)
	}
	if i := items[0]; i.Seq != 1 || !i.Time.Equal(at) || string(i.Body) != "x" || i.Source.Key().Epoch != b.Epoch() {
		t.Errorf("%+v", i)
	}
	if i := items[1]; i.Seq != 77 || i.Part != 2 || i.Source != theirs {
		t.Errorf("%+v", i)
	}
	if i := items[2]; i.Gap == nil || *i.Gap != *gap || i.Seq != 0 {
		t.Errorf("%+v", i)
	}
	if i := items[3]; i.Seq != 2 || !i.Time.IsZero() || len(i.Body) != 0 {
		t.Errorf("%+v", i)
	}
}

func TestNumbersRiseForTheDeviceOverAllItsStreamsAndOverRestarts(t *testing.T) {
	b := newBed(t, store.Config{})
	var want []string
	for round := range 3 {
		b.start()
		for stream := range 2 {
			source, err := b.Source(store.SourceKey{Device: "d", Stream: fmt.Sprint(stream)})
			if err != nil {
				t.Fatal(err)
			}
			b.add(source, "x")
			want = append(want, fmt.Sprintf("d/%d#%d x", stream, round*2+stream+1))
		}
		b.reopen()
		if round == 0 {
			c := b.cursor(store.CursorConfig{}) // nothing took the first records
			b.nothing(c)
		} else {
			b.cursor(store.CursorConfig{})
		}
	}
	b.reopen()
	b.wants(b.cursor(store.CursorConfig{}), want[2:]...)
}

func TestWhatWasNotAcknowledgedComesAgain(t *testing.T) {
	b := newBed(t, store.Config{})
	c := b.cursor(store.CursorConfig{})
	b.start()
	b.add(b.source("d"), "1", "2", "3", "4")
	c.Ack(b.wants(c, "d/s#1 1", "d/s#2 2"))
	b.wants(c, "d/s#3 3")
	c.Rewind()
	b.wants(c, "d/s#3 3", "d/s#4 4")
	b.reopen()
	c = b.cursor(store.CursorConfig{})
	b.start()
	c.Ack(b.wants(c, "d/s#3 3", "d/s#4 4"))
	b.reopen()
	b.nothing(b.cursor(store.CursorConfig{}))
}

func TestARepeatIsStoredOnceAndAHoleIsRefused(t *testing.T) {
	b := newBed(t, store.Config{})
	c := b.cursor(store.CursorConfig{})
	b.start()
	send := func(previous uint64, numbers ...uint64) error {
		batch := store.Batch{Channel: b.channel("x"), Previous: previous}
		for _, n := range numbers {
			batch.Entries = append(batch.Entries, store.Entry{Source: b.source("d"), Number: n, Body: fmt.Append(nil, n)})
		}
		commit, err := b.Append(t.Context(), batch)
		if err != nil {
			return err
		}
		return commit.Wait(t.Context())
	}
	for round := range 2 {
		base := uint64(round * 10)
		if err := send(base, base+1, base+2, base+4); err != nil {
			t.Fatal(err)
		}
		if err := send(base, base+1, base+2, base+4, base+10); err != nil {
			t.Fatal(err)
		}
		if err := send(base, base+1); err != nil {
			t.Fatal(err)
		}
		var hole *store.HoleError
		if err := send(base+11, base+12); !errors.As(err, &hole) || hole.Last != base+10 || !errors.Is(err, store.ErrHole) {
			t.Fatal(err)
		}
		if safe := b.channel("x").Safe(); safe != base+10 {
			t.Fatalf("safe is %d", safe)
		}
		if n := b.Stats().Repeats; n != 4 {
			t.Errorf("%d repeats", n)
		}
		b.reopen()
		if safe := b.channel("x").Safe(); safe != base+10 {
			t.Fatalf("safe is %d after a restart", safe)
		}
		c = b.cursor(store.CursorConfig{})
		b.start()
	}
	b.wants(c, "d/s#1 1", "d/s#2 2", "d/s#3 4", "d/s#4 10", "d/s#5 11", "d/s#6 12", "d/s#7 14", "d/s#8 20")
	b.nothing(c)
}

func TestEachCursorGetsWhatItTakes(t *testing.T) {
	b := newBed(t, store.Config{})
	takes := func(device string) func(store.SourceKey) bool {
		return func(k store.SourceKey) bool { return k.Device == device }
	}
	one := b.cursor(store.CursorConfig{Name: "one", Match: takes("a")})
	two := b.cursor(store.CursorConfig{Name: "two", Match: takes("b")})
	b.start()
	for i := range 3 {
		b.add(b.source("a"), fmt.Sprint("a", i))
		b.add(b.source("b"), fmt.Sprint("b", i), "b")
		b.add(b.source("c"), "c")
	}
	st := b.Stats()
	if st.Cursors[0].Lag != 3 || st.Cursors[1].Lag != 6 || st.Unwanted != 3 || st.Appended != 12 {
		t.Errorf("%+v", st)
	}
	one.Ack(b.wants(one, "a/s#1 a0", "a/s#2 a1"))
	b.wants(two, "b/s#1 b0", "b/s#2 b", "b/s#3 b1")
	if st := b.Stats(); st.Cursors[0].Lag != 1 || st.Cursors[1].Lag != 6 {
		t.Errorf("%+v", st.Cursors)
	}
	b.reopen()
	// The second one takes something else now: its lag is counted anew.
	one = b.cursor(store.CursorConfig{Name: "one", Match: takes("a")})
	two = b.cursor(store.CursorConfig{Name: "two", Match: takes("c")})
	if st := b.Stats(); st.Cursors[0].Lag != 1 || st.Cursors[1].Lag != 3 {
		t.Errorf("%+v", st.Cursors)
	}
	b.wants(one, "a/s#3 a2")
	b.wants(two, "c/s#1 c", "c/s#2 c", "c/s#3 c")
}

func TestACursorThatIsNotConfiguredHoldsItsRecordsUntilForgotten(t *testing.T) {
	b := newBed(t, store.Config{})
	b.cursor(store.CursorConfig{Name: "old"})
	b.start()
	b.add(b.source("d"), "1")
	b.reopen()
	c := b.cursor(store.CursorConfig{Name: "new"})
	b.start()
	b.add(b.source("d"), "2")
	c.Ack(b.wants(c, "d/s#1 1", "d/s#2 2"))
	list := b.Cursors()
	if len(list) != 2 || !list[1].Held || list[1].Lag != 2 || list[0].Held {
		t.Errorf("%+v", list)
	}
	if err := b.Forget(t.Context(), "new"); !errors.Is(err, store.ErrCursorInUse) {
		t.Error(err)
	}
	if err := b.Forget(t.Context(), "none"); !errors.Is(err, store.ErrNoCursor) {
		t.Error(err)
	}
	if err := b.Forget(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	b.add(b.source("d"), "3")
	if st := b.Stats(); st.Records > 2 {
		t.Errorf("%d records are still there", st.Records)
	}
	b.reopen()
	c = b.cursor(store.CursorConfig{Name: "new"})
	b.wants(c, "d/s#3 3")
	if list := b.Cursors(); len(list) != 1 {
		t.Errorf("%+v", list)
	}
}

func TestSpaceOfDeliveredRecordsIsUsedAgain(t *testing.T) {
	b := newBed(t, store.Config{MaxSize: 4 << 20})
	c := b.cursor(store.CursorConfig{})
	b.start()
	body := string(make([]byte, 1000))
	for range 200 { // 20 MB
		for range 4 {
			b.add(b.source("d"), body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body)
		}
		items, err := c.Read(t.Context(), nil, 1000, 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		c.Ack(items[len(items)-1].Position)
	}
	if st := b.Stats(); st.FileBytes > 24<<20 {
		t.Errorf("the file has %d bytes", st.FileBytes)
	}
}

func TestManySmallCommitsAreFolded(t *testing.T) {
	b := newBed(t, store.Config{})
	c := b.cursor(store.CursorConfig{})
	b.start()
	var want []string
	ch := b.channel("x")
	for i := range 300 {
		b.commit(store.Batch{Channel: ch, Previous: uint64(i), Entries: []store.Entry{{Source: b.source("d"), Number: uint64(i + 1), Body: fmt.Append(nil, i)}}})
		want = append(want, fmt.Sprintf("d/s#%d %d", i+1, i))
		if i == 150 {
			b.wants(c, want[:100]...) // a cursor in the middle finds its place again
		}
	}
	b.wants(c, want[100:]...)
	b.reopen()
	c = b.cursor(store.CursorConfig{})
	b.wants(c, want...)
	if safe := b.channel("x").Safe(); safe != 300 {
		t.Errorf("safe is %d", safe)
	}
}

func TestAChannelOfAForgottenEpochIsRefused(t *testing.T) {
	b := newBed(t, store.Config{})
	b.start()
	var oldest *store.Channel
	for epoch := range record.Epoch(store.MaxEpochs + 1) {
		c, err := b.Channel(store.ChannelKey{Sender: "peer", Epoch: epoch + 1})
		if err != nil {
			t.Fatal(err)
		}
		batch := store.Batch{Channel: c, Entries: []store.Entry{{Source: b.source("d"), Number: 9}}}
		b.commit(batch)
		if epoch == 0 {
			oldest = c
		}
	}
	_, err := b.Append(t.Context(), store.Batch{Channel: oldest, Previous: 9, Entries: []store.Entry{{Source: b.source("d"), Number: 10}}})
	if !errors.Is(err, store.ErrChannelGone) {
		t.Error(err)
	}
	b.add(b.source("d"), "so that the file learns of it")
	b.reopen()
	for epoch, want := range map[record.Epoch]uint64{2: 9, store.MaxEpochs + 1: 9} {
		c, err := b.Channel(store.ChannelKey{Sender: "peer", Epoch: epoch})
		if err != nil || c.Safe() != want {
			t.Errorf("epoch %d: %d, %v", epoch, c.Safe(), err)
		}
	}
}

func TestAFleetThatRestartsWithNewEpochsIsNeverLockedOut(t *testing.T) {
	b := newBed(t, store.Config{})
	b.start()
	source := b.source("d")
	const devices = store.MaxChannels / 3
	for start := range record.Epoch(5) {
		var last *store.Commit
		for device := range devices {
			c, err := b.Channel(store.ChannelKey{Sender: fmt.Sprint("press-", device), Epoch: start + 1})
			if err != nil {
				t.Fatalf("device %d at start %d: %v", device, start+1, err)
			}
			if last, err = b.Append(t.Context(), store.Batch{Channel: c, Entries: []store.Entry{{Source: source, Number: 1}}}); err != nil {
				t.Fatal(err)
			}
			if device > 0 || start > 0 { // press-0 stays connected from its first start on
				b.Release(c)
			}
		}
		<-last.Done()
	}
	for _, key := range []store.ChannelKey{{Sender: "press-0", Epoch: 1}, {Sender: "press-1", Epoch: 5}} {
		if c, err := b.Channel(key); err != nil || c.Safe() != 1 {
			t.Errorf("%v is forgotten: %v", key, err)
		}
	}
}

func TestAChannelThatNeverHadARecordIsForgottenOnceNobodyUsesIt(t *testing.T) {
	b := newBed(t, store.Config{})
	b.start()
	used := b.channel("x")
	b.commit(store.Batch{Channel: used, Entries: []store.Entry{{Source: b.source("d"), Number: 9}}})
	for epoch := range record.Epoch(store.MaxChannels + 100) {
		keys := []store.ChannelKey{
			{Sender: fmt.Sprint("peer-", epoch), Epoch: 1},     // many names
			{Sender: used.Key().Sender, Epoch: 100 + epoch},    // many epochs of one that publishes
			{Sender: "both", Epoch: epoch + 1, Channel: "one"}, // another channel of the epoch is in use
			{Sender: "both", Epoch: epoch + 1, Channel: "two"},
		}
		var all []*store.Channel
		for _, key := range keys {
			c, err := b.Channel(key)
			if err != nil {
				t.Fatalf("channel %d: %v", epoch, err)
			}
			all = append(all, c)
		}
		twice, err := b.Channel(keys[2])
		if err != nil || twice != all[2] {
			t.Fatalf("%p is another than %p, %v", twice, all[2], err)
		}
		for _, c := range append(all, twice) {
			b.Release(c)
		}
	}
	b.Release(used)
	if again := b.channel("x"); again != used || again.Safe() != 9 {
		t.Errorf("a channel with records is forgotten: safe is %d", again.Safe())
	}
}

func TestABadBatchIsRefusedWhole(t *testing.T) {
	b := newBed(t, store.Config{})
	c := b.cursor(store.CursorConfig{})
	b.start()
	theirs, err := b.Source(store.SourceKey{Agent: "below", Epoch: 5, Device: "d", Stream: "s"})
	if err != nil {
		t.Fatal(err)
	}
	good := store.Entry{Source: b.source("d"), Number: 1}
	for name, batch := range map[string]store.Batch{
		"no source":         {Entries: []store.Entry{good, {}}},
		"no number":         {Entries: []store.Entry{good, {Source: theirs}}},
		"numbers that fall": {Channel: b.channel("x"), Entries: []store.Entry{good, good}},
		"too large":         {Entries: []store.Entry{good, {Source: good.Source, Body: make([]byte, 5<<20)}}},
	} {
		if _, err := b.Append(t.Context(), batch); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, key := range []store.SourceKey{{Device: "", Stream: "s"}, {Device: "d", Stream: "_x"}, {Agent: "a/b", Device: "d", Stream: "s"}} {
		if _, err := b.Source(key); err == nil {
			t.Errorf("%+v: taken", key)
		}
	}
	b.nothing(c)
}

func TestAfterCloseNothingIsTaken(t *testing.T) {
	b := newBed(t, store.Config{})
	c := b.cursor(store.CursorConfig{})
	source := b.source("d")
	waiting, err := b.Append(t.Context(), store.Batch{Entries: []store.Entry{{Source: source}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil { // without Run having been called
		t.Fatal(err)
	}
	if err := waiting.Wait(t.Context()); err != nil {
		t.Errorf("Close commits what is left: %v", err)
	}
	if _, err := b.Append(t.Context(), store.Batch{Entries: []store.Entry{{Source: source}}}); !errors.Is(err, store.ErrClosed) {
		t.Error(err)
	}
	if _, err := c.Read(t.Context(), nil, 1, 1); !errors.Is(err, store.ErrClosed) {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// Everything at once, for the race detector.
func TestAllOfItMayBeUsedConcurrently(t *testing.T) {
	b := newBed(t, store.Config{MaxSize: 1 << 20, WhenFull: store.DropOldest, CommitDelay: time.Millisecond})
	cursors := []*store.Cursor{b.cursor(store.CursorConfig{Name: "1"}), b.cursor(store.CursorConfig{Name: "2"})}
	b.start()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			channel := b.channel(fmt.Sprint(i))
			for n := uint64(1); ctx.Err() == nil; n++ {
				source, err := b.Source(store.SourceKey{Device: fmt.Sprint("d", i), Stream: fmt.Sprint("s", n%50)})
				if err != nil {
					t.Error(err)
					return
				}
				commit, err := b.Append(ctx, store.Batch{
					Channel: channel, Previous: n - 1, Delay: n%2 == 0,
					Entries: []store.Entry{{Source: source, Number: n, Body: make([]byte, 500)}},
				})
				if err == nil && n%10 == 0 {
					err = commit.Wait(ctx)
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for _, c := range cursors {
		all.Go(func() { drain(ctx, c) })
	}
	all.Go(func() {
		for ctx.Err() == nil {
			b.Stats()
			b.Devices()
			cursors[0].Rewind()
		}
	})
	all.Wait()
	if st := b.Stats(); st.Appended < 100 {
		t.Errorf("%+v", st)
	}
}
