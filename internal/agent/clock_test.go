package agent

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/clock"
	"github.com/mcp-edge/edge-agent/internal/intake"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// lateClock is that of a gateway without a battery: it is 1970 until somebody sets
// the clock.
type lateClock struct {
	boot  string
	began time.Time

	mu     sync.Mutex
	synced bool
}

func boots(name string) *lateClock { return &lateClock{boot: name, began: time.Now()} }

// truth is what the time is.
func (m *lateClock) truth() time.Time { return m.began.AddDate(30, 0, 0).Add(m.Up()) }

func (m *lateClock) Boot() string      { return m.boot }
func (m *lateClock) Up() time.Duration { return time.Since(m.began) }
func (m *lateClock) Synchronised() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced
}

func (m *lateClock) Wall() time.Time {
	if m.Synchronised() {
		return m.truth()
	}
	return time.Unix(0, 0).Add(m.Up())
}

func (m *lateClock) sync() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced = true
}

// delivered is an upstream that is away, or takes JSON.
type delivered struct {
	mu    sync.Mutex
	lines []string
}

func (d *delivered) Send(_ context.Context, batch []record.Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range batch {
		d.lines = append(d.lines, string(batch[i].AppendJSON(nil)))
	}
	return nil
}

func (d *delivered) taken() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.lines...)
}

// plantAt is what the agent makes of a store, a clock and a route.
type plantAt struct {
	store   *store.Store
	clock   *clock.Clock
	offsets *clock.Offsets
	intake  *intake.Intake
	cursor  *store.Cursor
	stop    func()
}

func startAt(t *testing.T, dir string, m clock.Machine) *plantAt {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(dir, store.Config{MaxSize: 1 << 20, WhenFull: store.Block}, log)
	if err != nil {
		t.Fatal(err)
	}
	p := &plantAt{store: s, clock: clock.Of(m), intake: intake.New(s, log)}
	p.offsets = clock.NewOffsets(p.clock, clockOffsets{s.Mailbox()}, log)
	if p.cursor, err = s.Cursor(store.CursorConfig{Name: "all/out"}); err != nil {
		t.Fatal(err)
	}
	stage := start("test", log, []part{{"store", s.Run}, {"clock", p.offsets.Run}})
	p.stop = sync.OnceFunc(func() {
		stage.stop(time.Minute)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(p.stop)
	return p
}

// read stores a reading, on disk when it returns, and tells when it was.
func (p *plantAt) read(t *testing.T, m *lateClock) time.Time {
	t.Helper()
	r := record.Record{Device: "boiler-1", Stream: "temps", Points: []record.Point{{Name: "t", Value: record.Int(1)}}}
	r.At(p.clock.Now())
	at := m.began.AddDate(30, 0, 0).Add(r.Up)
	if err := p.intake.Polled().Deliver(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := p.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return at
}

// deliver runs the pump until n records have come.
func (p *plantAt) deliver(t *testing.T, n int) []string {
	t.Helper()
	d := new(delivered)
	pump := pipeline.NewPump("all/out", "gw-01", p.cursor, d, nil, p.offsets, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = pump.Run(ctx)
	}()
	for tick := time.Tick(time.Millisecond); len(d.taken()) < n && ctx.Err() == nil; {
		<-tick
	}
	cancel()
	<-done
	return d.taken()
}

// knows waits until the time of the newest boot is on disk.
func (p *plantAt) knows(t *testing.T, boots int) {
	t.Helper()
	for tick := time.Tick(time.Millisecond); ; {
		value, err := clockOffsets{p.store.Mailbox()}.Load()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(value), `"boot"`) == boots {
			return
		}
		select {
		case <-tick:
		case <-t.Context().Done():
			return
		}
	}
}

func TestAReadingFromBeforeTheClockWasSetHasItsRightTimeWhenItIsDeliveredLate(t *testing.T) {
	dir := t.TempDir()
	first := boots("first")
	p := startAt(t, dir, first)
	var want []time.Time
	want = append(want, p.read(t, first), p.read(t, first))
	p.stop() // the agent is started again in the same boot
	p = startAt(t, dir, first)
	want = append(want, p.read(t, first))
	first.sync()
	p.knows(t, 1)
	p.stop()

	second := boots("second") // its clock is not set yet
	p = startAt(t, dir, second)
	p.read(t, second)
	got := p.deliver(t, 4)
	if len(got) != 4 {
		t.Fatalf("%d records", len(got))
	}
	for i, line := range got {
		corrected := strings.Contains(line, `"clock":"corrected","time_recorded":"1970-01-01T`)
		if unsynced := strings.Contains(line, `"clock":"unsynced"`); corrected != (i < 3) || unsynced != (i == 3) {
			t.Errorf("record %d: %s", i, line)
		}
		if !strings.Contains(line, `"boot":"`) || !strings.Contains(line, `"uptime_ns":`) {
			t.Errorf("record %d can't be corrected by whoever gets it: %s", i, line)
		}
	}
	for i := range want {
		_, rest, _ := strings.Cut(got[i], `"time":"`)
		text, _, _ := strings.Cut(rest, `"`)
		at, err := time.Parse(time.RFC3339Nano, text)
		if d := at.Sub(want[i]); err != nil || d.Abs() > 10*time.Millisecond {
			t.Errorf("record %d is off by %v: %v", i, d, err)
		}
	}
}

func TestADamagedOffsetInTheQueuesFileIsLogged(t *testing.T) {
	p := startAt(t, t.TempDir(), boots("first"))
	commit, err := p.store.Mailbox().Put(clockKey, []byte("[{"))
	if err != nil {
		t.Fatal(err)
	}
	if err := commit.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	clock.NewOffsets(p.clock, clockOffsets{p.store.Mailbox()}, slog.New(slog.NewTextHandler(&text, nil)))
	if !strings.Contains(text.String(), "offsets in earlier boots can't be read") {
		t.Errorf("logged: %s", text.String())
	}
}
