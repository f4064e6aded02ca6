package mcp_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
)

// examples are the payloads that docs/protocol.md describes beside its vectors.
func examples() map[mcp.Command][]byte {
	hello := mcp.Hello{
		Sender: "press-7", Epoch: 0x0123456789ABCDEF, Software: "demo 1.0", Versions: []uint8{1, 2},
		Heartbeat: 30 * time.Second, Channels: []string{"main"}, MaxPayload: 4096,
	}
	welcome := mcp.Welcome{
		Hello: mcp.Hello{
			Sender: "gw-01", Epoch: 0x00000000DEADBEEF, Software: "edge-agent", Versions: []uint8{1, 2},
			Heartbeat: 30 * time.Second, Deduplicates: true, MaxPayload: 1 << 20, WindowRecords: 1024, WindowBytes: 4 << 20,
		},
		Positions: []mcp.Position{{Channel: "main", Number: 41}},
	}
	stroke := record.Record{
		Device: "press-7", Stream: "stroke", Time: time.Date(2026, 11, 22, 5, 8, 0, 123456789, time.UTC), Clock: record.ClockSynced,
		Points: []record.Point{
			{Name: "n", Value: record.Uint(42)},
			{Name: "force", Value: record.Float64(80.25), Unit: "kN"},
		},
	}
	raw := record.Record{Device: "press-7", Stream: "raw", Payload: []byte{1, 2, 3}}
	records := mcp.AppendRecord(mcp.AppendRecord(nil, stroke.Append(nil)), raw.Append(nil))
	request := mcp.Request{ID: 7, Method: "read", Device: "press-7"}
	response := mcp.Response{ID: 7, Payload: []byte("21.5"), ContentType: "text/plain"}
	closing := []byte("\x08\x0d\x12\x07restart")
	failed := []byte("\x08\x01\x12\x0ewrong checksum")
	return map[mcp.Command][]byte{
		mcp.CommandHeartbeat:    nil,
		mcp.CommandHeartbeatAck: nil,
		mcp.CommandHello:        hello.Append(nil),
		mcp.CommandWelcome:      welcome.Append(nil),
		mcp.CommandPublish:      mcp.AppendPublish(nil, "main", 41, nil, records),
		mcp.CommandAck:          mcp.AppendAck(nil, []mcp.Position{{Channel: "main", Number: 43}}),
		mcp.CommandRequest:      request.Append(nil),
		mcp.CommandResponse:     response.Append(nil),
		mcp.CommandClose:        closing,
		mcp.CommandError:        failed,
	}
}

func TestTheVectorsOfTheDocumentationHold(t *testing.T) {
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```vectors\n")
	block, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/protocol.md has no vectors")
	}
	seen := make(map[string]bool)
	for line := range strings.Lines(block) {
		var version uint8
		var name, digits string
		if _, err := fmt.Sscanf(line, "v%d %s %s", &version, &name, &digits); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		f, err := mcp.ParseFrame(want)
		if err != nil || f.Version != version || f.Command.String() != name {
			t.Errorf("%q reads as %v in version %d, %v", line, f.Command, f.Version, err)
			continue
		}
		if got := mustFrame(t, version, f.Command, examples()[f.Command]); !bytes.Equal(got, want) {
			t.Errorf("v%d %s\ngot  %x\nwant %x", version, name, got, want)
		}
		seen[fmt.Sprintf("v%d %s", version, name)] = true
	}
	for c := range examples() {
		for _, version := range []int{1, 2} {
			if !seen[fmt.Sprintf("v%d %s", version, c)] {
				t.Errorf("no vector for %v in version %d", c, version)
			}
		}
	}
}

func TestEachCodeStandsInTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for c := mcp.CodeOK; c <= mcp.CodeEpochSpent; c++ {
		if row := fmt.Sprintf("| %d | %s |", c, c); !strings.Contains(string(text), row) {
			t.Errorf("no row %q", row)
		}
	}
}
