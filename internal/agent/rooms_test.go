package agent

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// rooms are the layers of docs/architecture.md, lowest first. A package may
// import rooms further up in this list only, never one of its own line. The
// longest matching entry counts.
func rooms() [][]string {
	return [][]string{
		{"record"},
		{"internal/clock", "internal/pty", "internal/pattern"},
		{"transport"},
		{"transport/internal"},
		{"transport/tcp", "transport/udp", "transport/quic", "transport/serial", "transport/transporttest", "mcp", "store", "scheduler"},
		{"internal/auth", "internal/dialin"},
		{"internal/upstream", "internal/intake", "internal/driver/mcp", "internal/driver/modbus", "internal/driver/text", "internal/command"},
		{"internal/upstream/mqtt", "internal/upstream/file"},
		{"internal/pipeline", "internal/probe"},
		{"internal/doctor"},
		{"internal/admin"},
		{"internal/config"},
		{"internal/sim/wire", "internal/sim/instrument", "internal/sim/mcpdevice", "internal/sim/disk"},
		{"internal/sim/modbusslave"},
		{"internal/sim/bus"},
		{"internal/agent"},
		{"internal/demo"},
		{"cmd"},
		{"internal/e2e"},
	}
}

// forbidden are imports that a room must never have, beside the order of rooms.
func forbidden() map[string][]string {
	const module = "github.com/mcp-edge/edge-agent/"
	toml, bolt := "github.com/BurntSushi/toml", "go.etcd.io/bbolt"
	quic, dtls := "github.com/quic-go/quic-go", "github.com/pion/dtls/v3"
	return map[string][]string{
		"record":            {"net", "os", "net/http", toml, bolt},
		"transport":         {toml, bolt, "log/slog", module + "record"},
		"mcp":               {"net/http", toml, bolt, quic, dtls},
		"internal/auth":     {toml, bolt, quic, dtls, module + "mcp"},
		"store":             {"net", "net/http", toml},
		"scheduler":         {bolt, toml, "google.golang.org/grpc", module + "record", module + "store"},
		"internal/driver":   {toml, bolt, module + "transport/tcp", module + "transport/serial"},
		"internal/upstream": {toml, bolt, module + "store"},
		"internal/pipeline": {"net", toml, bolt, module + "transport"},
		"internal/doctor":   {"net", "net/http", "os", toml, bolt, module + "transport"},
		"internal/admin":    {toml, bolt, module + "internal/config"},
		"internal/sim":      {toml, bolt, module + "store", module + "scheduler", module + "internal/config"},
	}
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func TestImportsGoUpTheListOfRoomsOnly(t *testing.T) {
	const module = "github.com/mcp-edge/edge-agent/"
	seen := 0
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		own := level(path)
		if own < 0 {
			t.Errorf("%s stands in no room: give it a line in rooms and in docs/architecture.md", path)
			continue
		}
		seen++
		for _, imported := range p.Imports {
			if target, ours := strings.CutPrefix(imported, module); ours && level(target) >= own {
				t.Errorf("%s imports %s, which is not below it", path, target)
			}
			for room, never := range forbidden() {
				for _, bad := range never {
					if imported == bad && (path == room || strings.HasPrefix(path, room+"/")) && !isExempt(path, imported) {
						t.Errorf("%s imports %s, which no package of %s may", path, imported, room)
					}
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were looked at", seen)
	}
}

// isExempt: the file and network below a room's public face do what it may not.
func isExempt(path, imported string) bool {
	return strings.HasPrefix(path, "transport/") && imported == "net"
}

func level(path string) int {
	best, length := -1, -1
	for i, layer := range rooms() {
		for _, room := range layer {
			if (path == room || strings.HasPrefix(path, room+"/")) && len(room) > length {
				best, length = i, len(room)
			}
		}
	}
	return best
}

func packages(t *testing.T) (list []goPackage) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "../../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}
