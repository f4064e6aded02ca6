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

func ringSource(t interface {
	Helper()
	Fatal(...any)
}, r *store.Ring, device string,
) *store.Source {
	t.Helper()
	source, err := r.Source(store.SourceKey{Device: device, Stream: "s"})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func TestARingHandsOutInOrderUnderAnEpochOfItsOwn(t *testing.T) {
	r := store.NewRing(1<<20, quiet())
	all := r.Cursor(store.CursorConfig{Name: "all/out"})
	onlyB := r.Cursor(store.CursorConfig{Name: "b/out", Match: func(k store.SourceKey) bool { return k.Device == "b" }})
	for i := range 3 {
		for _, device := range []string{"a", "b"} {
			commit, err := r.Append(expiredContext(t), store.Batch{Entries: []store.Entry{{Source: ringSource(t, r, device), Time: time.Unix(1, 0), Body: fmt.Append(nil, i)}}})
			if err != nil || commit.Wait(t.Context()) != nil {
				t.Fatal(err)
			}
		}
	}
	for c, want := range map[*store.RingCursor]string{all: "a/s#1 0 b/s#1 0 a/s#2 1 b/s#2 1 a/s#3 2 b/s#3 2", onlyB: "b/s#1 0 b/s#2 1 b/s#3 2"} {
		var got []string
		for len(got) < len(strings.Fields(want))/2 {
			items, err := c.Read(t.Context(), nil, 2, 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, item := range items {
				got = append(got, text(item))
				if item.Source.Key().Epoch != r.Epoch() {
					t.Errorf("epoch %s", item.Source.Key().Epoch)
				}
			}
			c.Ack(items[len(items)-1].Position)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %q", got)
		}
	}
	if st := r.Stats(); st.Bytes != 0 || st.Records != 0 || st.Appended != 6 || st.Cursors[0].Lag+st.Cursors[1].Lag != 0 {
		t.Errorf("%+v", st)
	}
	if other := store.NewRing(1<<20, quiet()); other.Epoch() == r.Epoch() {
		t.Error("two starts have one epoch")
	}
}

func TestARingTakesARepeatOnceAndRefusesAHole(t *testing.T) {
	r := store.NewRing(1<<20, quiet())
	r.Cursor(store.CursorConfig{Name: "all/out"})
	channel, err := r.Channel(store.ChannelKey{Sender: "peer", Epoch: 7, Channel: "x"})
	if err != nil {
		t.Fatal(err)
	}
	send := func(previous uint64, numbers ...uint64) error {
		batch := store.Batch{Channel: channel, Previous: previous}
		for _, n := range numbers {
			batch.Entries = append(batch.Entries, store.Entry{Source: ringSource(t, r, "d"), Number: n})
		}
		_, err := r.Append(t.Context(), batch)
		return err
	}
	var hole *store.HoleError
	if err := errors.Join(send(0, 1, 2), send(1, 2, 3), send(0, 1, 2, 3)); err != nil {
		t.Error(err)
	}
	if err := send(4, 5); !errors.As(err, &hole) || hole.Last != 3 {
		t.Error(err)
	}
	if st := r.Stats(); st.Appended != 3 || st.Repeats != 4 || channel.Safe() != 3 {
		t.Errorf("%+v, safe %d", st, channel.Safe())
	}
	r.Release(channel)
	if err := send(3, 4); err != nil {
		t.Error(err)
	}
}

func TestAFullRingLosesItsOldestAndSaysWhich(t *testing.T) {
	r := store.NewRing(100<<10, quiet())
	slow := r.Cursor(store.CursorConfig{Name: "all/slow"})
	fast := r.Cursor(store.CursorConfig{Name: "all/fast"})
	const n = 300
	for i := range n {
		at := time.Unix(int64(i+1), 0)
		if _, err := r.Append(t.Context(), store.Batch{Entries: []store.Entry{{Source: ringSource(t, r, "d"), Time: at, Body: []byte(kilobyte(i + 1))}}}); err != nil {
			t.Fatal(err)
		}
		items, err := fast.Read(t.Context(), nil, 1, 1)
		if err != nil || items[0].Gap != nil || items[0].Seq != uint64(i+1) {
			t.Fatal(items, err)
		}
		fast.Ack(items[0].Position)
	}
	st := r.Stats()
	if st.Bytes > 100<<10 || len(st.Cursors[1].Dropped) != 0 || len(st.Cursors[0].Dropped) != 1 {
		t.Fatalf("%+v", st)
	}
	lost := st.Cursors[0].Dropped[0]
	if lost.Records < 200 || lost.Reason != record.GapDropOldest || lost.First.Unix() != 1 || lost.Last.Unix() != int64(lost.Records) || st.Cursors[0].Lag != n-lost.Records {
		t.Errorf("%+v", st)
	}
	items, err := slow.Read(t.Context(), nil, 2, 1)
	if err != nil || len(items) != 2 {
		t.Fatal(items, err)
	}
	if g := items[0].Gap; g == nil || g.From != 1 || g.To != lost.Records || g.Count != g.To || items[1].Seq != g.To+1 {
		t.Errorf("%s, then %.20s", text(items[0]), text(items[1]))
	}
	if _, err := r.Append(t.Context(), store.Batch{Entries: []store.Entry{{Source: ringSource(t, r, "d"), Body: make([]byte, 60<<10)}}}); !errors.Is(err, store.ErrTooLarge) {
		t.Error(err)
	}
}

func TestAClosedRingLetsNobodyWait(t *testing.T) {
	r := store.NewRing(1<<20, quiet())
	c := r.Cursor(store.CursorConfig{Name: "all/out"})
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(t.Context(), nil, 1, 1)
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	r.Close()
	if err := <-done; !errors.Is(err, store.ErrClosed) {
		t.Error(err)
	}
	if _, err := r.Append(t.Context(), store.Batch{Entries: []store.Entry{{Source: ringSource(t, r, "d")}}}); !errors.Is(err, store.ErrClosed) {
		t.Error(err)
	}
}

// Whatever is appended, read and acknowledged: each record is delivered, in order,
// or announced, and the ring stays within its size.
func TestARingDeliversOrAnnouncesEachRecord(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := store.NewRing(16<<10, quiet())
		takesA := func(k store.SourceKey) bool { return k.Device == "a" }
		cursors := []*store.RingCursor{r.Cursor(store.CursorConfig{Name: "1"}), r.Cursor(store.CursorConfig{Name: "2", Match: takesA})}
		next := []map[string]uint64{{}, {}}
		read := func(rt *rapid.T, i, n int) {
			if r.Stats().Cursors[i].Lag == 0 {
				return
			}
			items, err := cursors[i].Read(t.Context(), nil, n, 1<<20)
			if err != nil {
				rt.Fatal(err)
			}
			for _, item := range items {
				device, from, to := item.Source.Key().Device, item.Seq, item.Seq
				if g := item.Gap; g != nil {
					from, to = g.From, g.To
					if g.Count != to-from+1 {
						rt.Fatalf("%s", text(item))
					}
				}
				if from != next[i][device]+1 {
					rt.Fatalf("after %d comes %s", next[i][device], text(item))
				}
				next[i][device] = to
			}
			cursors[i].Ack(items[len(items)-1].Position)
		}
		sent := map[string]uint64{}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				var batch store.Batch
				for range rapid.IntRange(1, 10).Draw(rt, "n") {
					device := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "device")
					batch.Entries = append(batch.Entries, store.Entry{Source: ringSource(rt, r, device), Body: make([]byte, rapid.IntRange(0, 500).Draw(rt, "size"))})
					sent[device]++
				}
				if _, err := r.Append(t.Context(), batch); err != nil {
					rt.Fatal(err)
				}
			},
			"read": func(rt *rapid.T) {
				read(rt, rapid.IntRange(0, 1).Draw(rt, "cursor"), rapid.IntRange(1, 20).Draw(rt, "n"))
			},
			"": func(rt *rapid.T) {
				if st := r.Stats(); st.Bytes > st.MaxBytes {
					rt.Fatalf("%+v", st)
				}
			},
		})
		// A last record of each, behind whatever is announced.
		for device := range map[string]bool{"a": true, "b": true} {
			if _, err := r.Append(t.Context(), store.Batch{Entries: []store.Entry{{Source: ringSource(rt, r, device)}}}); err != nil {
				rt.Fatal(err)
			}
			sent[device]++
		}
		for i := range cursors {
			for r.Stats().Cursors[i].Lag > 0 {
				read(rt, i, 100)
			}
		}
		if next[0]["a"] != sent["a"] || next[0]["b"] != sent["b"] || next[1]["a"] != sent["a"] {
			rt.Fatalf("sent %v, arrived %v", sent, next)
		}
	})
}
