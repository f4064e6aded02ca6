package mcp

import (
	"bytes"
	"testing"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
)

// FuzzAnswer: whatever a device answers becomes a record that can be stored,
// under the names that the configuration gives it.
func FuzzAnswer(f *testing.F) {
	good := record.Record{Device: "other", Stream: "other", Agent: "gw-77", Epoch: 3, Seq: 9, Points: []record.Point{{Name: "level", Value: record.Float64(2.5)}}}
	twice := record.Record{Points: []record.Point{{Name: "n", Value: record.Uint(1)}, {Name: "n", Value: record.Uint(2)}}}
	gap := record.Record{Stream: record.GapStream, Gap: &record.Gap{From: 1, To: 2, Count: 2, Reason: record.GapOverload}}
	for _, r := range []record.Record{good, twice, gap, {}} {
		f.Add(r.Append(nil), mcp.ContentTypeRecord)
	}
	f.Add([]byte{0xFF}, mcp.ContentTypeRecord)
	f.Add([]byte("21.5"), "text/plain")
	f.Add([]byte{}, "")
	f.Fuzz(func(t *testing.T, payload []byte, contentType string) {
		a := mcp.Response{Payload: payload, ContentType: contentType}
		r := content("press-7", "temp", &a)
		if r.Device != "press-7" || r.Stream != "temp" || r.Agent != "" || r.Epoch != 0 || r.Seq != 0 || r.Gap != nil {
			t.Fatalf("the names and numbers are the device's: %+v", r)
		}
		if len(r.Points) == 0 && (!bytes.Equal(r.Payload, payload) || r.ContentType == "" && len(payload) == 0) {
			t.Fatalf("the answer is lost: %+v", r)
		}
		var again record.Record
		if err := again.Unmarshal(r.Append(nil)); err != nil || len(again.Points) != len(r.Points) {
			t.Fatalf("it does not read back: %v", err)
		}
		if contentType == mcp.ContentTypeRecord && r.Quality != record.Bad {
			if err := new(record.Checker).Check(&again); err != nil {
				t.Fatalf("it would be refused: %v", err)
			}
		}
	})
}
