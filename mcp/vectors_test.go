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

// example is a frame that docs/protocol.md describes beside its vectors.
type example struct {
	command mcp.Command
	payload []byte
}

// examples go by the names that the vectors have.
func examples() map[string]example {
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
	onlyRaw := mcp.AppendRecord(nil, raw.Append(nil))
	holes := []mcp.Position{
		{Channel: "main", Number: 43, ResendFrom: 44, ResendTo: 47},
		{Channel: "main", Number: 43, ResendFrom: 51, ResendTo: 51},
	}
	return map[string]example{
		"HEARTBEAT":           {mcp.CommandHeartbeat, nil},
		"HEARTBEAT_ACK":       {mcp.CommandHeartbeatAck, nil},
		"HELLO":               {mcp.CommandHello, hello.Append(nil)},
		"WELCOME":             {mcp.CommandWelcome, welcome.Append(nil)},
		"PUBLISH":             {mcp.CommandPublish, mcp.AppendPublish(nil, "main", 41, nil, records)},
		"PUBLISH-best-effort": {mcp.CommandPublish, mcp.AppendBestEffort(nil, "main", 41, onlyRaw)},
		"ACK":                 {mcp.CommandAck, mcp.AppendAck(nil, []mcp.Position{{Channel: "main", Number: 43}})},
		"ACK-holes":           {mcp.CommandAck, mcp.AppendAck(nil, holes)},
		"REQUEST":             {mcp.CommandRequest, request.Append(nil)},
		"RESPONSE":            {mcp.CommandResponse, response.Append(nil)},
		"CLOSE":               {mcp.CommandClose, closing},
		"ERROR":               {mcp.CommandError, failed},
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
		var kind, name, digits string
		if _, err := fmt.Sscan(line, &kind, &name, &digits); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if got := vector(t, kind, name); !bytes.Equal(got, want) {
			t.Errorf("%s %s\ngot  %x\nwant %x", kind, name, got, want)
		}
		seen[kind+" "+name] = true
	}
	for name := range examples() {
		for _, kind := range []string{"v1", "v2"} {
			if !seen[kind+" "+name] {
				t.Errorf("no vector %s %s", kind, name)
			}
		}
	}
	if !seen["udp ERROR-challenge"] {
		t.Error("no vector of a challenge")
	}
}

// vector is what a line of the vectors stands for.
func vector(t *testing.T, kind, name string) []byte {
	t.Helper()
	e := examples()[name]
	switch {
	case kind+" "+name == "udp ERROR-challenge":
		return challenge(0x0123456789ABCDEF)
	case e.command == 0:
		t.Fatalf("no example is called %s", name)
	}
	b := mustFrame(t, kind[1]-'0', e.command, e.payload)
	if f, err := mcp.ParseFrame(b); err != nil || f.Command != e.command || !bytes.Equal(f.Payload, e.payload) {
		t.Errorf("%s %s reads as %v, %v", kind, name, f, err)
	}
	return b
}

func TestEachCodeStandsInTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for c := mcp.CodeOK; c <= mcp.CodeRateExceeded; c++ {
		if row := fmt.Sprintf("| %d | %s |", c, c); !strings.Contains(string(text), row) {
			t.Errorf("no row %q", row)
		}
	}
}
