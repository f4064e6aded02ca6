package record_test

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/record"
)

func TestExactJSONReadsBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyRecord().Draw(t, "record")
		slices.SortFunc(want.Points, func(a, b record.Point) int { return cmp.Compare(a.Name, b.Name) })
		want.Points = slices.CompactFunc(want.Points, func(a, b record.Point) bool { return a.Name == b.Name })
		want.Quality = record.Summarise(want.Points)
		want.Resent = rapid.Bool().Draw(t, "resent")
		if want.Boot == 0 { // it has no JSON then
			want.Up = 0
		}
		if len(want.Payload) == 0 && want.ContentType != "" {
			want.Payload = []byte{} // an empty one is said to be there
		}
		if want.Gap != nil { // its JSON has neither points nor a number
			want = record.Record{Agent: want.Agent, Epoch: want.Epoch, Device: want.Device, Stream: record.GapStream, Time: want.Time, Clock: want.Clock, Boot: want.Boot, Up: want.Up, TimeRecorded: want.TimeRecorded, Resent: want.Resent, Gap: want.Gap}
			if want.Gap.From == 0 {
				want.Gap.To = 0
			}
		}
		var got record.Record
		line := want.AppendExact(nil)
		if err := got.ParseJSON(line, nil); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		slices.SortFunc(got.Points, func(a, b record.Point) int { return cmp.Compare(a.Name, b.Name) })
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\ngot  %+v\nwant %+v", line, got, want)
		}
	})
}

func TestPlainJSONReadsBackAsTheSameJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyRecord().Draw(t, "record")
		if len(want.Points) > 1 {
			want.Points = want.Points[:1]
		}
		if want.Gap != nil {
			want.Stream = record.GapStream
		}
		line := want.AppendJSON(nil)
		var got record.Record
		if err := got.ParseJSON(line, nil); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if again := got.AppendJSON(nil); string(again) != string(line) {
			t.Fatalf("got  %s\nwant %s", again, line)
		}
	})
}

func TestALineThatIsNoRecordSaysWhy(t *testing.T) {
	const good = `"agent":"gw-01","epoch":"0000000000000001","device":"d","stream":"s","seq":1,"part":0,"time":"2026-11-22T05:08:00Z","clock":"synced","quality":"good"`
	for line, says := range map[string]string{
		``:                                  "not one JSON object",
		`7`:                                 "not one JSON object",
		`{"agent":"gw`:                      "cut short",
		`{"agent":7}`:                       `"agent": it can't be a number`,
		`{` + good:                          "cut short",
		`{` + good + `}{}`:                  "something follows",
		`{` + good + `,"seq":2}`:            `"seq" comes twice`,
		`{` + good + `,"flavour":"x"}`:      `"flavour" is not known here`,
		`{` + good + `,"values":{"a":[1]}}`: `"a" is neither a number`,
		`{` + good + `,"values":{"a":1},"types":{"a":"int7"}}`:    `there is no type "int7"`,
		`{` + good + `,"values":{"a":-1},"types":{"a":"uint"}}`:   "-1 is no uint",
		`{` + good + `,"values":{"a/b":1}}`:                       `"a/b"`,
		`{` + good + `,"gap":{"count":1}}`:                        "for announcing gaps",
		strings.Replace(`{`+good+`}`, "d\"", "\"", 1):             "device name is empty",
		strings.Replace(`{`+good+`}`, "2026-", "soon ", 1):        "is no time",
		strings.Replace(`{`+good+`}`, "2026-", "9026-", 1):        "beyond the times",
		strings.Replace(`{`+good+`}`, "0000000000000001", "x", 1): "16 hexadecimal digits",
		`{"device":"d","stream":"s"}`:                             `no "time"`,
	} {
		if err := new(record.Record).ParseJSON([]byte(line), nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s\n%v, want %s", line, err, says)
		}
	}
}

func TestAMemberOfAnotherFormIsHandedOut(t *testing.T) {
	var r record.Record
	var name, value string
	err := r.ParseJSON([]byte(`{"device":"d","stream":"s","time":"2026-11-22T05:08:00Z","raw":"AA=="}`), func(n string, v json.RawMessage) error {
		name, value = n, string(v)
		return nil
	})
	if err != nil || name != "raw" || value != `"AA=="` || !r.Time.Equal(time.Date(2026, 11, 22, 5, 8, 0, 0, time.UTC)) {
		t.Errorf("%v: %s %s, %v", err, name, value, r.Time)
	}
}

func FuzzParseJSONNeverFailsOnWhatItTook(f *testing.F) {
	f.Add([]byte(`{"agent":"a","epoch":"0000000000000001","device":"d","stream":"s","seq":1,"part":0,"time":"2026-11-22T05:08:00Z","values":{"a":1.5,"b":7},"types":{"a":"float32"},"bad":{"c":"timeout"}}`))
	f.Add([]byte(`{"device":"d","stream":"_gap","time":"2026-11-22T05:08:00Z","gap":{"from":1,"to":2,"count":2,"reason":"damage","first":"2026-11-22T05:08:00Z","last":"2026-11-22T05:08:00Z"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second record.Record
		if first.ParseJSON(b, nil) != nil {
			return
		}
		line := first.AppendExact(nil)
		if err := second.ParseJSON(line, nil); err != nil {
			t.Fatalf("took %s, but not its own writing of it, %s: %v", b, line, err)
		}
	})
}
