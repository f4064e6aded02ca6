package doctor_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// queue is a running one with a route.
func queue(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Config{MaxSize: 8 << 20}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Cursor(store.CursorConfig{Name: "all/local"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// put stores records, of their own agent if they name one.
func put(t *testing.T, s *store.Store, records ...record.Record) {
	t.Helper()
	var b store.Batch
	for i := range records {
		r := &records[i]
		source, err := s.Source(store.SourceKey{Agent: r.Agent, Epoch: r.Epoch, Device: r.Device, Stream: r.Stream})
		if err != nil {
			t.Fatal(err)
		}
		e := store.Entry{Source: source, Time: r.Time, Seq: r.Seq, Part: r.Part, Gap: r.Gap}
		if r.Gap == nil {
			bare := *r
			bare.Agent, bare.Epoch, bare.Seq, bare.Part = "", 0, 0, 0
			e.Body = bare.Append(nil)
		}
		b.Entries = append(b.Entries, e)
	}
	c, err := s.Append(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// reading is a record of a device, n minutes after noon.
func reading(device string, n int) record.Record {
	return record.Record{
		Device: device, Stream: "temps", Time: time.Date(2026, 11, 22, 12, n, 0, 0, time.UTC), Clock: record.ClockSynced,
		Points: []record.Point{{Name: "t", Value: record.Float32(float32(n) / 10), Unit: "°C"}, {Name: "n", Value: record.Uint(uint64(n))}},
	}
}

// lines are all records of a queue.
func lines(t *testing.T, log doctor.Log, f doctor.Filter, form doctor.Form) (list []string) {
	t.Helper()
	e := doctor.Encoder{Agent: "gw-01", Form: form}
	err := doctor.Each(t.Context(), log, f, nil, func(item *store.Item) error {
		list = append(list, string(e.Append(nil, item)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestARecordIsShownAsItLeavesTheAgent(t *testing.T) {
	s := queue(t)
	r := reading("boiler-1", 5)
	put(t, s, r)
	r.Agent, r.Epoch, r.Seq = "gw-01", s.Epoch(), 1
	if got := lines(t, s, doctor.Filter{}, doctor.Plain); len(got) != 1 || got[0] != string(r.AppendJSON(nil)) {
		t.Errorf("got  %q\nwant %s", got, r.AppendJSON(nil))
	}
}

func TestAFilterChoosesByDeviceStreamAndTime(t *testing.T) {
	s := queue(t)
	for n := range 10 {
		put(t, s, reading("boiler-1", n), reading("boiler-2", n), reading("press-7", n))
	}
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		filter doctor.Filter
		n      int
	}{
		"all":      {doctor.Filter{}, 30},
		"devices":  {doctor.Filter{Devices: []string{"boiler-*"}}, 20},
		"two":      {doctor.Filter{Devices: []string{"boiler-1", "press-*"}}, 20},
		"stream":   {doctor.Filter{Streams: []string{"other"}}, 0},
		"times":    {doctor.Filter{From: noon.Add(3 * time.Minute), To: noon.Add(5 * time.Minute)}, 6},
		"position": {doctor.Filter{Position: 30}, 1},
		"beyond":   {doctor.Filter{Position: 31}, 0},
	} {
		if got := lines(t, s, c.filter, doctor.Plain); len(got) != c.n {
			t.Errorf("%s: %d records, want %d", name, len(got), c.n)
		}
	}
}

func TestPagesTogetherAreAll(t *testing.T) {
	s := queue(t)
	for n := range 20 {
		put(t, s, reading("boiler-1", n))
	}
	e := doctor.Encoder{Agent: "gw-01"}
	var all []json.RawMessage
	f := doctor.Filter{}
	for pages := 1; ; pages++ {
		p, err := doctor.ReadPage(t.Context(), s, f, &e, 7)
		if err != nil || pages > 4 {
			t.Fatal(pages, err)
		}
		all = append(all, p.Records...)
		if f.Position = p.Next; p.Next > p.End {
			break
		}
	}
	if len(all) != 20 || !strings.Contains(string(all[19]), `"seq":20`) {
		t.Errorf("%d records: %s", len(all), all)
	}
}

func TestSumsAddUpInParts(t *testing.T) {
	s := queue(t)
	for n := range 10 {
		put(t, s, reading("boiler-1", n))
	}
	put(t, s, record.Record{Device: "boiler-1", Stream: record.GapStream, Time: time.Unix(1, 0), Gap: &record.Gap{Count: 2, Reason: record.GapOverload}})
	whole, err := doctor.ReadSums(t.Context(), s, "gw-01", 0)
	if err != nil {
		t.Fatal(err)
	}
	sum := doctor.Sums{}
	for _, from := range []uint64{1} {
		part, err := doctor.ReadSums(t.Context(), s, "gw-01", from)
		if err != nil {
			t.Fatal(err)
		}
		sum.Add(part)
		sum.Add(doctor.Sums{Sources: []doctor.Source{{Agent: "gw-01", Epoch: s.Epoch().String(), Device: "boiler-1", Stream: "temps", Records: 1, LastSeq: 11}}})
	}
	sum.Sort("gw-01")
	if len(whole.Sources) != 2 || len(sum.Sources) != 2 {
		t.Fatalf("%+v %+v", whole, sum)
	}
	if c := sum.Sources[1]; c.Stream != "temps" || c.Records != 11 || c.FirstSeq != 1 || c.LastSeq != 11 {
		t.Errorf("%+v", c)
	}
	if g := sum.Sources[0]; g.Stream != record.GapStream || g.Gaps != 1 || g.Records != 0 {
		t.Errorf("%+v", g)
	}
}
