package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// clock is a store.Clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now store.Instant
}

func newClock() *clock {
	return &clock{now: store.Instant{Boot: "1", Up: time.Hour, Wall: time.Unix(1_700_000_000, 0), Synced: true}}
}

func (c *clock) Now() store.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(change func(now *store.Instant)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.now)
}

// pass lets real time pass.
func (c *clock) pass(d time.Duration) {
	c.set(func(now *store.Instant) { now.Up, now.Wall = now.Up+d, now.Wall.Add(d) })
}

// reboot restarts the machine, which takes as long as down.
func (c *clock) reboot(down time.Duration) {
	c.set(func(now *store.Instant) { now.Boot, now.Up, now.Wall = now.Boot+"+", time.Minute, now.Wall.Add(down) })
}

func (b *bed) flush() {
	b.Helper()
	if err := b.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// spans are the drops of a cursor, as text.
func (b *bed) spans(cursor string) (list []string) {
	for _, c := range b.Stats().Cursors {
		for _, d := range c.Dropped {
			if c.Name == cursor {
				list = append(list, fmt.Sprintf("%s %s %d from %d to %d", d.Device, d.Reason, d.Records, d.First.Unix(), d.Last.Unix()))
			}
		}
	}
	return list
}

func TestRecordsThatAreTooOldGoOnlyForTheCursorThatSaysSo(t *testing.T) {
	clock := newClock()
	b := newBed(t, store.Config{Clock: clock})
	impatient := b.cursor(store.CursorConfig{Name: "impatient", MaxAge: time.Hour})
	patient := b.cursor(store.CursorConfig{Name: "patient"})
	b.start()
	for range 10 {
		b.addTimes(b.source("a"), 2)
		b.addTimes(b.source("b"), 1)
		clock.pass(time.Minute)
	}
	clock.pass(55 * time.Minute)
	b.until("the oldest are dropped", func() bool { b.flush(); return len(b.spans("impatient")) == 2 })
	b.add(b.source("a"), "new")

	// The first five to seven minutes are more than an hour ago, and stamps are
	// two minutes apart.
	items, err := impatient.Read(t.Context(), nil, 2, 1)
	if err != nil || len(items) != 2 || items[0].Gap == nil || items[1].Gap == nil {
		t.Fatal(items, err)
	}
	a, bb := items[0].Gap, items[1].Gap
	if a.Reason != record.GapAge || a.From != 1 || a.To < 8 || a.To > 14 || a.Count != a.To || bb.From != 1 || bb.To != a.To/2 || bb.Count != bb.To {
		t.Fatalf("%+v %+v", a, bb)
	}
	want := []string{fmt.Sprintf("a age %d from 1 to 2", a.To), fmt.Sprintf("b age %d from 1 to 1", bb.To)}
	if got := b.spans("impatient"); fmt.Sprint(got) != fmt.Sprint(want) || b.spans("patient") != nil {
		t.Errorf("got %q, want %q; %q", got, want, b.spans("patient"))
	}
	if got, _ := b.read(impatient, 1); !strings.HasPrefix(got[0], fmt.Sprintf("a/s#%d ", a.To+1)) {
		t.Errorf("got %.20s", got[0])
	}
	got, _ := b.read(patient, 31)
	if !strings.HasPrefix(got[0], "a/s#1 ") || got[30] != "a/s#21 new" {
		t.Errorf("%.20s … %.20s", got[0], got[30])
	}
}

func TestWhatIsTooOldIsFreedThoughItsGapIsNotYetTold(t *testing.T) {
	clock := newClock()
	b := newBed(t, store.Config{Clock: clock})
	b.cursor(store.CursorConfig{MaxAge: time.Hour})
	b.start()
	b.addTimes(b.source("d"), 20)
	clock.pass(2 * time.Hour)
	b.until("freeing", func() bool { b.flush(); return b.Stats().Records == 0 })
	if lag := b.Stats().Cursors[0].Lag; lag != 0 {
		t.Errorf("lag %d", lag)
	}
	b.reopen() // the gap is on disk
	c := b.cursor(store.CursorConfig{MaxAge: time.Hour})
	b.start()
	b.add(b.source("d"), "new")
	c.Ack(b.wants(c, "d gap 1-20 n=20 age", "d/s#21 new"))
	b.reopen()
	b.nothing(b.cursor(store.CursorConfig{}))
}

func TestRecordsAgeByNothingButTimeThatHasCertainlyPassed(t *testing.T) {
	year := 365 * 24 * time.Hour
	for name, c := range map[string]struct {
		happens func(c *clock)
		restart bool
		expires bool
	}{
		"the clock jumps years ahead": {func(c *clock) { c.set(func(now *store.Instant) { now.Wall = now.Wall.Add(10 * year) }) }, false, false},
		"the clock jumps years back":  {func(c *clock) { c.set(func(now *store.Instant) { now.Wall = now.Wall.Add(-10 * year) }) }, false, false},
		"it jumps during a restart of the agent": {func(c *clock) {
			c.set(func(now *store.Instant) { now.Wall = now.Wall.Add(10 * year) })
		}, true, false},
		"a reboot without the time": {func(c *clock) {
			c.reboot(2 * time.Hour)
			c.set(func(now *store.Instant) { now.Synced = false })
		}, true, false},
		"a reboot with a clock that begins in 1970": {func(c *clock) {
			c.reboot(0)
			c.set(func(now *store.Instant) { now.Synced, now.Wall = false, time.Unix(60, 0) })
		}, true, false},
		"another machine that has been up for years": {func(c *clock) {
			c.reboot(0)
			c.set(func(now *store.Instant) { now.Synced, now.Up = false, 3*year })
		}, true, false},
		"a reboot, and the clock was set back":  {func(c *clock) { c.reboot(-year) }, true, false},
		"an hour and more":                      {func(c *clock) { c.pass(61 * time.Minute) }, false, true},
		"an hour and more over a restart":       {func(c *clock) { c.pass(61 * time.Minute) }, true, true},
		"a reboot of an hour, both times known": {func(c *clock) { c.reboot(61 * time.Minute) }, true, true},
		"the clock is wrong, and an hour passes": {func(c *clock) {
			c.set(func(now *store.Instant) { now.Synced, now.Wall = false, time.Unix(0, 0) })
			c.pass(61 * time.Minute)
		}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			b := newBed(t, store.Config{Clock: clock})
			cursor := b.cursor(store.CursorConfig{MaxAge: time.Hour})
			b.start()
			b.addTimes(b.source("d"), 3)
			if c.restart {
				b.stop()
			}
			c.happens(clock)
			if c.restart {
				b.open()
				cursor = b.cursor(store.CursorConfig{MaxAge: time.Hour})
				b.start()
			}
			b.flush()
			b.flush()
			want := []string{"d age 3 from 1 to 3"}
			if !c.expires {
				want = nil
			}
			if c.expires {
				b.until("dropping", func() bool { b.flush(); return b.spans("c") != nil })
			}
			if got := b.spans("c"); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("dropped %q, want %q", got, want)
			}
			if !c.expires {
				b.read(cursor, 3)
			}
		})
	}
}

func TestTimeBeforeARebootAndAfterItCountsTogether(t *testing.T) {
	clock := newClock()
	clock.set(func(now *store.Instant) { now.Synced = false })
	b := newBed(t, store.Config{Clock: clock})
	b.cursor(store.CursorConfig{MaxAge: time.Hour})
	b.start()
	b.addTimes(b.source("d"), 3)
	clock.pass(40 * time.Minute)
	b.add(b.source("d"), "forty minutes later")
	b.stop()
	clock.reboot(-time.Hour)
	b.open()
	b.cursor(store.CursorConfig{MaxAge: time.Hour})
	b.start()
	b.flush()
	if b.spans("c") != nil {
		t.Errorf("%q", b.spans("c"))
	}
	clock.pass(21 * time.Minute)
	b.until("dropping", func() bool { b.flush(); return b.spans("c") != nil })
	if got := b.spans("c"); got[0] != "d age 3 from 1 to 3" {
		t.Errorf("%q", got)
	}
}

func TestWhatWaitsForYearsCostsFewStamps(t *testing.T) {
	clock := newClock()
	b := newBed(t, store.Config{Clock: clock})
	b.cursor(store.CursorConfig{Name: "an hour", MaxAge: time.Hour})
	b.cursor(store.CursorConfig{Name: "a year", MaxAge: 365 * 24 * time.Hour})
	b.start()
	for range 1000 {
		b.add(b.source("d"), "x")
		clock.pass(time.Hour)
	}
	b.until("the hour's", func() bool { b.flush(); return b.spans("an hour") != nil && b.Stats().Cursors[1].Lag < 3 })
	if b.spans("a year") != nil || b.Stats().Cursors[0].Lag != 1000 {
		t.Errorf("%q %+v", b.spans("a year"), b.Stats().Cursors)
	}
	clock.pass(365 * 24 * time.Hour)
	b.until("the year's", func() bool { b.flush(); return b.Stats().Cursors[0].Lag == 0 && b.Stats().Records == 0 })
}

func TestWhatIsTooOldMayEndInTheMiddleOfASegmentThatIsDroppedLater(t *testing.T) {
	clock := newClock()
	cfg := small(store.DropOldest)
	cfg.Clock = clock
	b := newBed(t, cfg)
	c := b.cursor(store.CursorConfig{MaxAge: time.Hour})
	b.start()
	for range 2 { // 80 small segments become one
		for range 40 {
			b.add(b.source("d"), "x")
		}
		clock.pass(10 * time.Minute)
	}
	clock.pass(45 * time.Minute)
	b.until("the first forty are dropped", func() bool { b.flush(); return b.spans("c") != nil })
	b.addTimes(b.source("d"), 300)
	next := uint64(1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for next <= 380 {
		items, err := c.Read(ctx, nil, 100, 1<<20)
		if err != nil {
			t.Fatalf("after %d: %v; %q, %+v", next-1, err, b.spans("c"), b.Stats())
		}
		for _, item := range items {
			from, to := item.Seq, item.Seq
			if g := item.Gap; g != nil {
				if from, to = g.From, g.To; g.Count != to-from+1 {
					t.Errorf("%s", text(item))
				}
			}
			if from != next {
				t.Fatalf("after %d comes %.40s", next-1, text(item))
			}
			next = to + 1
		}
		c.Ack(items[len(items)-1].Position)
	}
	if got := b.spans("c"); len(got) != 2 || !strings.HasPrefix(got[0], "d age 40 ") || b.Stats().Damaged != 0 {
		t.Errorf("%q, %d damaged", got, b.Stats().Damaged)
	}
}
