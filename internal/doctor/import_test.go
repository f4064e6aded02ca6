package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// mixed is a queue with all that there can be in one.
func mixed(t *testing.T) *store.Store {
	t.Helper()
	s := queue(t)
	for n := range 30 {
		put(t, s, reading("boiler-1", n))
	}
	below := reading("boiler-9", 1)
	below.Agent, below.Epoch, below.Seq = "gw-below", 7, 900
	part := below
	part.Part = 2
	put(t, s, below, part,
		record.Record{Device: "boiler-1", Stream: record.GapStream, Time: time.Unix(1, 0), Gap: &record.Gap{Count: 2, Reason: record.GapOverload}},
		record.Record{Device: "press-7", Stream: "raw", Time: time.Unix(2, 0), Payload: []byte{1, 2}, ContentType: "image/png"},
		record.Record{Device: "press-7", Stream: "raw", Time: time.Unix(3, 0), Clock: record.ClockUnsynced, Boot: 5, Up: time.Hour, Points: []record.Point{{Name: "n", Bad: "timeout"}}},
	)
	source, err := s.Source(store.SourceKey{Device: "odd", Stream: "s"})
	if err != nil {
		t.Fatal(err)
	}
	newer := reading("odd", 3)
	for _, body := range [][]byte{{0xff}, append(newer.Append(nil), 0xf8, 0x06, 0x01)} { // no record; a field 111 that nobody knows
		c, err := s.Append(t.Context(), store.Batch{Entries: []store.Entry{{Source: source, Time: newer.Time, Body: body}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func imported(t *testing.T, q doctor.Queue, text string) doctor.Imported {
	t.Helper()
	result, err := doctor.Import(t.Context(), q, "gw-01", strings.NewReader(text), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// bodies are what is stored, with its identity.
func bodies(t *testing.T, s *store.Store) (list []string) {
	t.Helper()
	err := doctor.Each(t.Context(), s, doctor.Filter{}, nil, func(item *store.Item) error {
		key := item.Source.Key()
		if key.Agent == "" {
			key.Agent = "gw-01"
		}
		gap := ""
		if item.Gap != nil {
			gap = fmt.Sprint(*item.Gap)
		}
		list = append(list, fmt.Sprintf("%v #%d.%d %v %x %s", key, item.Seq, item.Part, item.Time, item.Body, gap))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAnExportTakenBackElsewhereIsTheSameToTheByte(t *testing.T) {
	from, to := mixed(t), queue(t)
	text := strings.Join(lines(t, from, doctor.Filter{}, doctor.Exact), "\n")
	want := bodies(t, from)
	if r := imported(t, to, text); r.Stored != uint64(len(want)) || r.Bad+r.Known != 0 {
		t.Errorf("%+v", r)
	}
	got := bodies(t, to)
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("record %d\ngot  %s\nwant %s", i, got[i], want[i])
		}
	}
	again := strings.Join(lines(t, to, doctor.Filter{}, doctor.Exact), "\n")
	if again != text {
		t.Errorf("exported again it reads\n%s\nnot\n%s", again, text)
	}
}

func TestWhatIsInTheQueueIsNotImportedTwice(t *testing.T) {
	s := mixed(t)
	text := strings.Join(lines(t, s, doctor.Filter{}, doctor.Exact), "\n") + "\n"
	n := uint64(len(bodies(t, s)))
	if r := imported(t, s, text+text); r.Known != 2*n || r.Stored != 0 || r.Bad != 0 {
		t.Errorf("%+v", r)
	}
	to := queue(t)
	if r := imported(t, to, text+text); r.Known != n || r.Stored != n {
		t.Errorf("%+v", r)
	}
	if r := imported(t, to, text); r.Known != n || r.Stored != 0 {
		t.Errorf("%+v", r)
	}
}

func TestAnImportLeavesTheNumbersOfThisAgentAlone(t *testing.T) {
	old, now := queue(t), queue(t)
	for n := range 20 {
		put(t, old, reading("boiler-1", n))
	}
	for n := range 5 {
		put(t, now, reading("boiler-1", n))
	}
	imported(t, now, strings.Join(lines(t, old, doctor.Filter{}, doctor.Exact), "\n"))
	put(t, now, reading("boiler-1", 5))
	list := bodies(t, now)
	if len(list) != 26 || !strings.Contains(list[25], fmt.Sprintf("%v boiler-1 temps} #6.0", now.Epoch())) || !strings.Contains(list[24], fmt.Sprintf("{gw-01 %v boiler-1 temps} #20.0", old.Epoch())) {
		t.Errorf("%d records, %q", len(list), list[24:])
	}
}

func TestALineThatCannotBeIsReportedAndTheRestStored(t *testing.T) {
	s := queue(t)
	put(t, s, reading("boiler-1", 1))
	good := func(agent, epoch string, seq int) string {
		return fmt.Sprintf(`{"agent":"%s","epoch":"%s","device":"boiler-1","stream":"temps","seq":%d,"part":0,"time":"2026-11-22T05:08:00Z","clock":"synced","quality":"good","values":{"t":1}}`, agent, epoch, seq)
	}
	r := imported(t, s, strings.Join([]string{
		good("gw-02", "0000000000000009", 1),
		"no JSON",
		"",
		good("", "0000000000000009", 1),
		good("gw-02", "0000000000000000", 1),
		good("gw-02", "0000000000000009", 0),
		good("gw-01", s.Epoch().String(), 2),
		good("gw-01", s.Epoch().String(), 1),
		strings.Replace(good("gw-02", "0000000000000009", 2), `"clock"`, `"x":1,"clock"`, 1),
		good("gw-02", "0000000000000009", 3),
	}, "\n"))
	if r.Lines != 9 || r.Stored != 2 || r.Known != 1 || r.Bad != 6 {
		t.Errorf("%+v", r)
	}
	for i, want := range []string{"2: it is not one JSON object", "4: it does not say which agent", "5: it has no epoch", "6: it has no number", "7: the number 2 of boiler-1 was never given out", `9: "x" is not known here`} {
		if got := fmt.Sprintf("%d: %s", r.Problems[i].Line, r.Problems[i].Problem); !strings.HasPrefix(got, want) {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

func TestAnImportIntoAFullQueueSaysHowFarItCame(t *testing.T) {
	s := queue(t) // 8 MiB, nobody reads from it
	r := reading("boiler-1", 1)
	r.Agent, r.Epoch, r.Payload, r.ContentType = "gw-02", 3, make([]byte, 100_000), "image/png"
	var text strings.Builder
	for n := range 100 {
		r.Seq = uint64(n + 1)
		text.Write(append(r.AppendExact(nil), '\n'))
	}
	result, err := doctor.Import(t.Context(), s, "gw-01", strings.NewReader(text.String()), 300*time.Millisecond)
	if !errors.Is(err, doctor.ErrImportFull) || result.Stored < 50 || result.Line < result.Stored || result.Stopped == "" {
		t.Errorf("%+v %v", result, err)
	}
	if n := len(bodies(t, s)); uint64(n) != result.Stored {
		t.Errorf("%d are there, %d were said to be", n, result.Stored)
	}
}

func TestASetOfIdentitiesKnowsWhatWasAdded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set doctor.Identities
		want := make(map[string]bool)
		for range rapid.IntRange(1, 200).Draw(t, "n") {
			seq, part := rapid.Uint64Range(1, 40).Draw(t, "seq"), rapid.Uint32Range(0, 1).Draw(t, "part")
			device := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "device")
			set.Add(device, seq, part)
			want[fmt.Sprint(device, seq, part)] = true
		}
		for _, device := range []string{"a", "b", "c"} {
			for seq := uint64(1); seq <= 41; seq++ {
				for part := range uint32(2) {
					if got := set.Has(device, seq, part); got != want[fmt.Sprint(device, seq, part)] {
						t.Fatalf("%s %d.%d: %v", device, seq, part, got)
					}
				}
			}
		}
	})
}

// cutReader ends a context when so many bytes are read.
type cutReader struct {
	io.Reader
	left int
	cut  func()
}

func (r *cutReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p[:min(len(p), 1000)])
	if r.left -= n; r.left < 0 {
		r.cut()
	}
	return n, err
}

func TestAnImportThatWasCutOffIsRepeatedWithoutARepeat(t *testing.T) {
	s := queue(t)
	var text strings.Builder
	for n := range 3000 {
		r := reading("boiler-1", n)
		r.Agent, r.Epoch, r.Seq = "gw-02", 3, uint64(n+1)
		text.Write(append(r.AppendExact(nil), '\n'))
	}
	cuts := 0
	for _, part := range []int{5, 3, 2} {
		ctx, cancel := context.WithCancel(t.Context())
		result, err := doctor.Import(ctx, s, "gw-01", &cutReader{strings.NewReader(text.String()), text.Len() / part, cancel}, time.Second)
		cancel()
		if err != nil {
			cuts++
		}
		if err != nil && (result.Stopped == "" || result.Stored+result.Known > 3000) {
			t.Errorf("%+v %v", result, err)
		}
	}
	imported(t, s, text.String())
	list := bodies(t, s)
	if len(list) != 3000 || cuts != 3 {
		t.Fatalf("%d records after %d cuts", len(list), cuts)
	}
	for n := range list {
		if !strings.Contains(list[n], fmt.Sprintf(" #%d.0 ", n+1)) {
			t.Fatalf("record %d is %s", n, list[n])
		}
	}
}
