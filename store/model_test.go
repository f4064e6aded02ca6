package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/store"
)

// model is the queue as a list in memory.
type model struct {
	b       *bed
	stop    func()
	log     []string // every record, as text
	devices []string // of each record
	seqs    map[string]uint64
	channel map[string]uint64
	cursors []*modelCursor
	compact sync.WaitGroup
}

type modelCursor struct {
	*store.Cursor
	name   string
	device string // "": takes all
	read   int    // index in the log
	acked  int
	flight []flying
}

type flying struct {
	position uint64
	index    int
}

func (m *model) open() {
	m.b.open()
	for _, c := range m.cursors {
		c.Cursor = m.b.cursor(store.CursorConfig{Name: c.name, Match: func(k store.SourceKey) bool {
			return c.device == "" || k.Device == c.device
		}})
		c.read, c.flight = c.acked, nil
	}
	m.stop = run(m.b.TB, m.b.Store)
}

func (m *model) append(t *rapid.T) {
	device := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "device")
	var batch store.Batch
	withChannel := rapid.Bool().Draw(t, "channel")
	if withChannel {
		batch.Channel = m.b.channel(device)
		batch.Previous = m.channel[device]
	}
	for range rapid.IntRange(1, 20).Draw(t, "n") {
		m.seqs[device]++
		body := fmt.Sprint(m.seqs[device], strings.Repeat("x", rapid.SampledFrom([]int{0, 10, 300, 3000}).Draw(t, "size")))
		e := store.Entry{Source: m.b.source(device), Body: []byte(body)}
		if withChannel {
			m.channel[device] += 1 + uint64(rapid.IntRange(0, 2).Draw(t, "skip"))
			e.Number = m.channel[device]
		}
		batch.Entries = append(batch.Entries, e)
		m.log = append(m.log, fmt.Sprintf("%s/s#%d %s", device, m.seqs[device], body))
		m.devices = append(m.devices, device)
	}
	m.b.commit(batch)
	if withChannel && rapid.Bool().Draw(t, "repeat") {
		m.b.commit(batch)
	}
}

func (c *modelCursor) takes(device string) bool { return c.device == "" || c.device == device }

func (m *model) read(t *rapid.T) {
	c := rapid.SampledFrom(m.cursors).Draw(t, "cursor")
	n := rapid.IntRange(1, 30).Draw(t, "n")
	left := 0
	for _, device := range m.devices[c.read:] {
		if c.takes(device) {
			left++
		}
	}
	if left == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	items, err := c.Read(ctx, nil, n, rapid.IntRange(1, 10000).Draw(t, "bytes"))
	if err != nil || len(items) > n {
		t.Fatalf("%s: %d items of %d, %v", c.name, len(items), left, err)
	}
	for _, item := range items {
		for !c.takes(m.devices[c.read]) {
			c.read++
		}
		if got := text(item); got != m.log[c.read] {
			t.Fatalf("%s: got %.30s, want %.30s", c.name, got, m.log[c.read])
		}
		c.read++
		c.flight = append(c.flight, flying{item.Position, c.read})
	}
}

func (m *model) ack(t *rapid.T) {
	c := rapid.SampledFrom(m.cursors).Draw(t, "cursor")
	if len(c.flight) == 0 {
		return
	}
	i := rapid.IntRange(0, len(c.flight)-1).Draw(t, "up to")
	c.Ack(c.flight[i].position)
	c.acked = c.flight[i].index
	c.flight = c.flight[i+1:]
}

func (m *model) rewind(t *rapid.T) {
	c := rapid.SampledFrom(m.cursors).Draw(t, "cursor")
	c.Rewind()
	c.read, c.flight = c.acked, nil
}

func (m *model) reopen(*rapid.T) {
	m.close()
	m.open()
}

func (m *model) close() {
	m.stop()
	m.compact.Wait()
}

// giveBack has the file replaced while the next steps go on.
func (m *model) giveBack(t *rapid.T) {
	s, wait := m.b.Store, rapid.Bool().Draw(t, "wait")
	m.compact.Go(func() {
		if err := s.Compact(context.Background()); err != nil && !errors.Is(err, store.ErrClosed) {
			m.b.Error(err)
		}
	})
	if wait {
		m.compact.Wait()
	}
}

// check compares what the store says of itself.
func (m *model) check(t *rapid.T) {
	for i, st := range m.b.Stats().Cursors {
		c := m.cursors[i]
		lag := uint64(0)
		for _, device := range m.devices[c.acked:] {
			if c.takes(device) {
				lag++
			}
		}
		if st.Lag != lag {
			t.Fatalf("%s: lag is %d, want %d", c.name, st.Lag, lag)
		}
	}
	for device, last := range m.channel {
		if safe := m.b.channel(device).Safe(); safe != last {
			t.Fatalf("channel %s: safe is %d, want %d", device, safe, last)
		}
	}
}

func TestItDoesWhatAListInMemoryWouldDo(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		// What is kept makes no difference to a cursor.
		keep := rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(r, "keep")
		m := &model{
			b:    &bed{TB: t, dir: t.TempDir(), cfg: store.Config{MaxSize: 64 << 20, CommitDelay: time.Millisecond, Keep: keep}},
			seqs: make(map[string]uint64), channel: make(map[string]uint64),
			cursors: []*modelCursor{{name: "1"}, {name: "2", device: "a"}, {name: "3", device: "c"}},
		}
		m.open()
		defer func() { m.close() }()
		r.Repeat(map[string]func(*rapid.T){
			"append": m.append, "append more": m.append, "read": m.read, "read more": m.read,
			"ack": m.ack, "rewind": m.rewind, "reopen": m.reopen, "compact": m.giveBack, "": m.check,
		})
	})
}
