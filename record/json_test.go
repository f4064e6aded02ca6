package record_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/record"
)

func TestJSONIsWhatUsersHoldOnTo(t *testing.T) {
	at := time.Date(2026, 11, 22, 5, 8, 0, 123456789, time.UTC)
	base := record.Record{Agent: "gw-01", Epoch: 0x53a1, Device: "boiler-1", Stream: "temps", Seq: 42, Time: at, Clock: record.ClockSynced}
	for name, c := range map[string]struct {
		change func(*record.Record)
		want   string
	}{
		"a reading": {
			func(r *record.Record) {
				r.Points = []record.Point{{Name: "supply_temp", Value: record.Float32(21.1), Unit: "°C"}}
			},
			`"seq":42,"part":0,"time":"2026-11-22T05:08:00.123456789Z","clock":"synced","quality":"good","values":{"supply_temp":21.1},"units":{"supply_temp":"°C"}}`,
		},
		"whole numbers to 64 bits": {
			func(r *record.Record) {
				r.Points = []record.Point{{Name: "a", Value: record.Uint(math.MaxUint64)}, {Name: "b", Value: record.Int(math.MinInt64)}}
			},
			`"seq":42,"part":0,"time":"2026-11-22T05:08:00.123456789Z","clock":"synced","quality":"good","values":{"a":18446744073709551615,"b":-9223372036854775808}}`,
		},
		"a point that could not be read": {
			func(r *record.Record) {
				r.Quality = record.Partial
				r.Points = []record.Point{{Name: "on", Value: record.Bool(true)}, {Name: "flow", Bad: record.BadTimeout}}
			},
			`"seq":42,"part":0,"time":"2026-11-22T05:08:00.123456789Z","clock":"synced","quality":"partial","values":{"on":true},"bad":{"flow":"timeout"}}`,
		},
		"a raw payload": {
			func(r *record.Record) { r.Payload, r.ContentType, r.Quality = []byte("W ??"), "text/plain", record.Bad },
			`"seq":42,"part":0,"time":"2026-11-22T05:08:00.123456789Z","clock":"synced","quality":"bad","payload":"VyA/Pw==","content_type":"text/plain"}`,
		},
		"a time that is not sure": {
			func(r *record.Record) { r.At(record.Stamp{Time: at, Boot: 0x53a1, Up: 5 * time.Minute}) },
			`"seq":42,"part":0,"time":"2026-11-22T05:08:00.123456789Z","clock":"unsynced","boot":"00000000000053a1","uptime_ns":300000000000,"quality":"good"}`,
		},
		"a time that was corrected": {
			func(r *record.Record) {
				r.At(record.Stamp{Time: time.Unix(300, 0), Boot: 0x53a1, Up: 5 * time.Minute})
				r.Correct(at)
			},
			`"seq":42,"part":0,"time":"2026-11-22T05:08:00.123456789Z","clock":"corrected","time_recorded":"1970-01-01T00:05:00Z",` +
				`"boot":"00000000000053a1","uptime_ns":300000000000,"quality":"good"}`,
		},
		"a gap": {
			func(r *record.Record) {
				r.Stream, r.Seq = record.GapStream, 0
				r.Gap = &record.Gap{From: 3, To: 5, Count: 3, Reason: record.GapDropOldest, First: at, Last: at}
			},
			`"time":"2026-11-22T05:08:00.123456789Z","clock":"synced","gap":{"from":3,"to":5,"count":3,"reason":"drop-oldest","first":"2026-11-22T05:08:00.123456789Z","last":"2026-11-22T05:08:00.123456789Z"}}`,
		},
	} {
		r := base
		c.change(&r)
		want := `{"agent":"gw-01","epoch":"00000000000053a1","device":"boiler-1","stream":"` + r.Stream + `",` + c.want
		if got := string(r.AppendJSON(nil)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestEveryRecordIsValidJSONThatReadsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRecord().Draw(t, "record")
		var got struct {
			Device string                     `json:"device"`
			Epoch  string                     `json:"epoch"`
			Time   time.Time                  `json:"time"`
			Values map[string]json.RawMessage `json:"values"`
		}
		text := r.AppendJSON(nil)
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if got.Device != r.Device || !got.Time.Equal(r.Time) {
			t.Fatalf("%s", text)
		}
		if e, err := record.ParseEpoch(got.Epoch); err != nil || e != r.Epoch {
			t.Fatalf("epoch %v, %v", e, err)
		}
	})
}

func TestTextOfAnyBytesIsQuotedAsJSONDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		r := record.Record{Device: "d", Stream: "s", Points: []record.Point{{Name: "p", Value: record.String(s)}}}
		var got struct {
			Values struct {
				P string `json:"p"`
			} `json:"values"`
		}
		if err := json.Unmarshal(r.AppendJSON(nil), &got); err != nil {
			t.Fatal(err)
		}
		if want := string([]rune(s)); got.Values.P != want {
			t.Fatalf("got %q, want %q", got.Values.P, want)
		}
	})
}
