package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// makeQueue is a program of the scripts: it makes the queue of an agent that has
// stopped, in the directory that is its argument. Three devices have written; the
// route all/local has delivered the first ten records, old/cloud none.
func makeQueue() {
	if err := fillQueue(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fillQueue(dir string) error {
	s, err := store.Open(dir, store.Config{MaxSize: 1 << 20}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return err
	}
	all, err := s.Cursor(store.CursorConfig{Name: "all/local"})
	if err != nil {
		return err
	}
	if _, err := s.Cursor(store.CursorConfig{Name: "old/cloud"}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for i := range 20 {
		if err := addRecord(s, i); err != nil {
			return err
		}
	}
	items, err := all.Read(ctx, nil, 10, 1<<20)
	if err != nil {
		return err
	}
	all.Ack(items[len(items)-1].Position)
	cancel()
	if err := <-ended; err != nil {
		return err
	}
	return s.Close()
}

// addRecord commits the n-th record: each is a segment of its own.
func addRecord(s *store.Store, n int) error {
	r := record.Record{Device: "boiler-1", Stream: "temps", Time: time.Date(2026, 11, 22, 5, 8, n, 0, time.UTC), Clock: record.ClockSynced}
	r.Points = []record.Point{{Name: "supply_temp", Value: record.Float32(20.5 + float32(n)/10), Unit: "°C"}, {Name: "cycles", Value: record.Uint(uint64(n))}}
	switch n % 5 {
	case 3:
		r.Device, r.Stream, r.Points = "press-7", "raw", nil
		r.Payload, r.ContentType = fmt.Appendf(nil, "frame %d", n), "text/plain"
	case 4:
		r.Device, r.Points = "boiler-2", []record.Point{{Name: "supply_temp", Bad: record.BadTimeout}}
		r.Quality = record.Bad
	}
	key := store.SourceKey{Device: r.Device, Stream: r.Stream}
	e := store.Entry{Time: r.Time, Body: r.Append(nil)}
	switch n {
	case 9: // of an agent below
		key.Agent, key.Epoch, e.Seq = "gw-below", 7, 900
	case 14:
		key.Stream = record.GapStream
		e.Body, e.Gap = nil, &record.Gap{Count: 3, Reason: record.GapOverload, First: r.Time.Add(-time.Minute), Last: r.Time}
	}
	source, err := s.Source(key)
	if err != nil {
		return err
	}
	e.Source = source
	commit, err := s.Append(context.Background(), store.Batch{Entries: []store.Entry{e}})
	if err != nil {
		return err
	}
	return commit.Wait(context.Background())
}

// damageQueue is a program of the scripts: it changes a byte of the record that has
// the text given, in the queue in a directory.
func damageQueue() {
	path := filepath.Join(os.Args[1], store.FileName)
	if err := damageFile(path, os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func damageFile(path, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	found := 0
	for at := 0; ; at += len(text) {
		i := bytes.Index(b[at:], []byte(text))
		if i < 0 {
			break
		}
		at += i
		b[at]++
		found++
	}
	if found == 0 {
		return fmt.Errorf("%q is not in %s", text, path)
	}
	return os.WriteFile(path, b, 0o600)
}

// breakQueue is a program of the scripts: it spoils the structure of the queue's file
// in a directory.
func breakQueue() {
	path := filepath.Join(os.Args[1], store.FileName)
	if err := breakFile(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// breakFile overwrites the list of what is on a page, of each page that has one.
func breakFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const page, header, elements = 4096, 16, 48
	for at := 2 * page; at+page <= len(b); at += page {
		kind, count := b[at+8], b[at+10]
		if (kind == 1 || kind == 2) && count > 1 {
			copy(b[at+header:], bytes.Repeat([]byte{'X'}, elements))
		}
	}
	return os.WriteFile(path, b, 0o600)
}
