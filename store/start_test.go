package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

func TestANewCursorStartsWhereItIsToldAndKeepsItsPlace(t *testing.T) {
	b := newBed(t, store.Config{})
	b.cursor(store.CursorConfig{Name: "holds all"})
	b.start()
	// Times that do not rise, and another device's that would come first.
	for i, second := range []int64{10, 5, 20, 8, 30} {
		b.commit(store.Batch{Entries: []store.Entry{
			{Source: b.source("other"), Time: time.Unix(100, 0), Body: []byte("o")},
			{Source: b.source("d"), Time: time.Unix(second, 0), Body: fmt.Append(nil, i+1)},
		}})
	}
	onlyD := func(k store.SourceKey) bool { return k.Device == "d" }
	for text, want := range map[string]string{
		"":                               "d/s#1 1",
		"oldest":                         "d/s#1 1",
		"1970-01-01T00:00:20Z":           "d/s#3 3",
		"1970-01-01T00:00:20.000000001Z": "d/s#5 5",
		"1970-01-01T01:00:08+01:00":      "d/s#1 1",
		"1970-01-01T00:00:31Z":           "d/s#6 new",
		"2100-01-01T00:00:00Z":           "d/s#6 new",
		"newest":                         "d/s#6 new",
	} {
		start, err := store.ParseStart(text)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(text)
		b.cursor(store.CursorConfig{Name: "at " + text, Match: onlyD, Start: start})
		defer func() { b.wants(b.cursor(store.CursorConfig{Name: "at " + text, Match: onlyD}), want) }()
	}
	b.add(b.source("d"), "new")
	b.reopen() // and the place holds, wherever it would start now
}

func TestWhatIsNoStartIsRefused(t *testing.T) {
	for _, text := range []string{"now", "Oldest", "2026-11-29", "2026-11-29T06:00:00", "0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z"} {
		if start, err := store.ParseStart(text); err == nil {
			t.Errorf("%s: %+v", text, start)
		}
	}
}
