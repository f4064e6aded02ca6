package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

// browse shows what a query finds, as text.
func (b *bed) browse(q store.Query) (list []string) {
	b.Helper()
	for item, err := range b.Browse(b.Context(), q) {
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, text(item))
	}
	return list
}

func TestBrowseShowsWhatIsInTheFileAndMovesNoCursor(t *testing.T) {
	b := newBed(t, store.Config{})
	c := b.cursor(store.CursorConfig{})
	b.start()
	for i := 1; i <= 10; i++ {
		for _, device := range []string{"a", "b"} {
			b.commit(store.Batch{Entries: []store.Entry{{Source: b.source(device), Time: time.Unix(int64(i), 0), Body: fmt.Append(nil, i)}}})
		}
	}
	_, last := b.read(c, 3)
	for name, test := range map[string]struct {
		query       store.Query
		n           int
		first, last string
	}{
		"everything":   {store.Query{}, 20, "a/s#1 1", "b/s#10 10"},
		"by position":  {store.Query{From: 3, To: 6}, 4, "a/s#2 2", "b/s#3 3"},
		"by device":    {store.Query{Match: func(k store.SourceKey) bool { return k.Device == "b" }}, 10, "b/s#1 1", "b/s#10 10"},
		"by time":      {store.Query{Since: time.Unix(4, 0), Until: time.Unix(6, 0)}, 4, "a/s#4 4", "b/s#5 5"},
		"the end only": {store.Query{Since: time.Unix(10, 0)}, 2, "a/s#10 10", "b/s#10 10"},
		"the front":    {store.Query{Until: time.Unix(2, 0)}, 2, "a/s#1 1", "b/s#1 1"},
	} {
		got := b.browse(test.query)
		if len(got) != test.n || got[0] != test.first || got[len(got)-1] != test.last {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := b.browse(store.Query{From: 21}); got != nil {
		t.Errorf("behind the end: %q", got)
	}
	c.Ack(last)
	b.wants(c, "b/s#2 2")
}

func TestBrowseGoesOnWhileRecordsAreFreed(t *testing.T) {
	b := newBed(t, store.Config{})
	c := b.cursor(store.CursorConfig{})
	b.start()
	const n = 12_000
	for range n / 1000 {
		batch := store.Batch{}
		for range 1000 {
			batch.Entries = append(batch.Entries, store.Entry{Source: b.source("d"), Body: []byte("x")})
		}
		b.commit(batch)
	}
	seen, position := 0, uint64(0)
	for item, err := range b.Browse(t.Context(), store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 1 {
			_, last := b.read(c, 11_000)
			c.Ack(last)
			b.until("freeing", func() bool { b.add(b.source("d"), "y"); return b.Stats().Records < 2000 })
		}
		if item.Position <= position {
			t.Fatalf("%d after %d", item.Position, position)
		}
		position = item.Position
	}
	if position != n || seen < 1000 || seen > 6000 {
		t.Errorf("%d seen, the last at %d", seen, position)
	}
}

func TestBrowseEndsWithItsContextAndWithTheStore(t *testing.T) {
	b := newBed(t, store.Config{})
	b.cursor(store.CursorConfig{})
	b.start()
	b.add(b.source("d"), "x")
	for _, err := range b.Browse(expiredContext(t), store.Query{}) {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	b.stop()
	for _, err := range b.Browse(t.Context(), store.Query{}) {
		if !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	}
}
