package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

// queue is the store under test, with one cursor.
type queue struct {
	*store.Store
	cursor    *store.Cursor
	producers []*producer
	cancel    context.CancelFunc
	ran       chan error
}

// producer has a device, a source and a channel of its own.
type producer struct {
	queue   *queue
	source  *store.Source
	channel *store.Channel
	number  uint64
	body    []byte
	time    time.Time
}

func openQueue(dir string, producers int) (*queue, error) {
	path := filepath.Join(dir, "queue")
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, err
	}
	s, err := store.Open(path, store.Config{MaxSize: 32 << 30, WhenFull: store.Block, CommitDelay: time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	q := &queue{Store: s, ran: make(chan error, 1)}
	if q.cursor, err = s.Cursor(store.CursorConfig{Name: "c"}); err != nil {
		return nil, err
	}
	now := time.Now()
	for i := range producers {
		p := &producer{queue: q, body: make([]byte, bodySize), time: now}
		if p.source, err = s.Source(store.SourceKey{Device: "device-" + strconv.Itoa(i), Stream: "s"}); err != nil {
			return nil, err
		}
		if p.channel, err = s.Channel(store.ChannelKey{Sender: "sender-" + strconv.Itoa(i), Epoch: 1}); err != nil {
			return nil, err
		}
		q.producers = append(q.producers, p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	q.cancel = cancel
	go func() { q.ran <- s.Run(ctx) }()
	return q, nil
}

func (q *queue) close() error {
	q.cancel()
	return errors.Join(<-q.ran, q.Close())
}

func (p *producer) send() (*store.Commit, error) {
	p.number++
	return p.queue.Append(context.Background(), store.Batch{
		Entries: []store.Entry{{Source: p.source, Time: p.time, Number: p.number, Body: p.body}},
		Channel: p.channel, Previous: p.number - 1,
	})
}

func onDisk(c *store.Commit) error {
	<-c.Done()
	return c.Err()
}

func (q *queue) append(i int) error {
	commit, err := q.producers[i].send()
	if err != nil {
		return err
	}
	return onDisk(commit)
}

func (q *queue) pipeline(window int, done *atomic.Bool) (int64, error) {
	return pipelined(window, done, q.producers[0].send, onDisk)
}

// fill appends records of one device, in batches.
func (q *queue) fill(records, batch int) error {
	source, err := q.Source(store.SourceKey{Device: "filler", Stream: "s"})
	if err != nil {
		return err
	}
	entries := slices.Repeat([]store.Entry{{Source: source, Time: time.Now(), Body: make([]byte, bodySize)}}, batch)
	for ; records > 0; records -= batch {
		if _, err := q.Append(context.Background(), store.Batch{Entries: entries[:min(batch, records)]}); err != nil {
			return err
		}
	}
	return q.Flush(context.Background())
}

// reader delivers in the background until stopped: everything, or what is more than
// keep.
type reader struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (q *queue) read(keep uint64) *reader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{cancel: cancel}
	r.done.Go(func() {
		var items []store.Item
		for ctx.Err() == nil {
			if keep > 0 {
				until(ctx, func() bool { return q.Stats().Records > keep })
			}
			var err error
			if items, err = q.cursor.Read(ctx, items[:0], 4096, 2<<20); err != nil {
				return
			}
			q.cursor.Ack(items[len(items)-1].Position)
		}
	})
	return r
}

func (r *reader) stop() {
	r.cancel()
	r.done.Wait()
}

// drain delivers all but keep records and waits until their space is free.
func (q *queue) drain(keep uint64) {
	r := q.read(keep)
	defer r.stop()
	until(context.Background(), func() bool { return q.Stats().Records <= keep+10_000 })
}

// until waits for a condition that nobody announces, or for ctx.
func until(ctx context.Context, condition func() bool) {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !condition() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// ready makes the file as large as it will be, as the floor's is.
func (q *queue) ready(dir string) error {
	if err := q.fill(512<<20/bodySize, 1000); err != nil {
		return err
	}
	q.drain(0)
	return q.reopen(dir)
}

// reopen makes what a commit writes count right: Linux caches a file in pieces as
// large as it was written, and /proc/self/io counts a piece as written when a page
// of it is. The store lets go of them when it is opened.
func (q *queue) reopen(dir string) error {
	numbers := make([]uint64, len(q.producers))
	for i, p := range q.producers {
		numbers[i] = p.number
	}
	if err := q.close(); err != nil {
		return err
	}
	again, err := openQueue(dir, len(q.producers))
	if err != nil {
		return err
	}
	*q = *again
	for i, p := range q.producers {
		p.queue, p.number = q, numbers[i]
	}
	return nil
}
