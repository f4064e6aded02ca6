package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mcp-edge/edge-agent/internal/sim/mcpdevice"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// The load of BenchmarkAgent: so many devices publish so many records each.
const (
	loadDevices = 64
	loadRecords = 3_000_000 / loadDevices
	loadPayload = 256
)

// loadAddress, when set in the environment, makes this test binary the load
// generator: a process of its own, as devices are.
const loadAddress = "EDGE_AGENT_LOAD_ADDRESS"

// generateLoad publishes as fast as the window allows and returns when all is
// acknowledged.
func generateLoad(ctx context.Context, address string) error {
	devices, ctx := errgroup.WithContext(ctx)
	for i := range loadDevices {
		d, err := mcpdevice.New(mcpdevice.Config{
			Publisher: mcp.PublisherConfig{Session: mcp.Config{Name: "press-" + strconv.Itoa(i)}, Dialer: tcp.NewDialer(address, nil)},
			Count:     loadRecords, Payload: loadPayload,
		})
		if err != nil {
			return err
		}
		devices.Go(func() error { return d.Run(ctx) })
	}
	return devices.Wait()
}

// BenchmarkAgent measures the whole way: 64 MCP devices over TCP in another
// process, each record on disk before its ACK, delivered to the file upstream
// (JSON Lines, fdatasync). Run it with -benchtime 1x.
func BenchmarkAgent(b *testing.B) {
	fast, err := shippedBinary()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		port := freePort(b)
		config, admin := configure(b, fmt.Sprintf(`
[agent]
id = "gw-01"
data_dir = "DATA"
[admin]
listen = "ADMIN"
[log]
level = "warn"
[[listen]]
name = "plant"
transport = "tcp"
address = "127.0.0.1:%d"
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = %q }
`, port, filepath.Join(b.TempDir(), "out.jsonl")))
		a := runBinary(b, fast, config, admin)
		load := exec.Command(os.Args[0])
		load.Env = append(os.Environ(), loadAddress+"="+fmt.Sprintf("127.0.0.1:%d", port))
		load.Stderr = os.Stderr
		b.StartTimer()
		start := time.Now()
		if err := load.Run(); err != nil {
			b.Fatal(err)
		}
		acked := time.Since(start)
		eventually(b, 2*time.Minute, "everything to be delivered", func() bool { return a.sent() >= loadDevices*loadRecords })
		took := time.Since(start)
		b.StopTimer()
		b.ReportMetric(loadDevices*loadRecords/took.Seconds(), "records/s")
		b.ReportMetric(loadDevices*loadRecords/acked.Seconds(), "acked/s")
		b.ReportMetric(a.cpu(b)/(loadDevices*loadRecords)*1e9, "agent-cpu-ns/record")
		b.ReportMetric(load.ProcessState.UserTime().Seconds()/(loadDevices*loadRecords)*1e9, "load-user-ns/record")
		b.ReportMetric(0, "ns/op")
		if code := a.stop(); code != 0 {
			b.Fatalf("the agent ended with %d", code)
		}
		b.StartTimer()
	}
}

// sent is how many records the agent's upstreams have confirmed.
func (a *agent) sent() (n uint64) {
	_, body := a.get("/api/v1/status")
	var status struct {
		Routes []struct {
			Sent uint64 `json:"sent"`
		} `json:"routes"`
	}
	if json.Unmarshal(body, &status) == nil {
		for _, r := range status.Routes {
			n += r.Sent
		}
	}
	return n
}

// cpu is the processor time that the agent has used, in seconds.
func (a *agent) cpu(tb testing.TB) float64 {
	tb.Helper()
	return cpuOf(tb, a.cmd.Process.Pid)
}

// cpuOf is the processor time that a process has used, in seconds.
func cpuOf(tb testing.TB, pid int) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	// proc(5): utime and stime are fields 14 and 15, in ticks of 1/100 s; the
	// name in field 2 may hold blanks, so count from behind it.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err1 != nil || err2 != nil {
		tb.Fatal(err1, err2)
	}
	return (user + system) / 100
}

// written is how many bytes the agent has sent to the disk (proc(5), io).
func (a *agent) written(tb testing.TB) (n uint64) {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", a.cmd.Process.Pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, err = strconv.ParseUint(strings.TrimSpace(v), 10, 64)
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// TestAnIdleAgentIsSmallAndSparesItsFlash: ten devices polled each second take at
// most 30 MiB of anonymous memory and write at most 3 GB a day.
func TestAnIdleAgentIsSmallAndSparesItsFlash(t *testing.T) {
	dir := t.TempDir()
	small, err := shippedBinary() // the race detector's build is far larger
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("[agent]\nid = \"gw-01\"\ndata_dir = \"DATA\"\n[admin]\nlisten = \"ADMIN\"\n")
	slavePort := freePort(t)
	launch(t, "/usr/bin/python3", "testdata/slave.py", "tcp", fmt.Sprint(slavePort)).says("ready")
	for i := range 10 {
		fmt.Fprintf(&text, `
[[link]]
name = "l%d"
transport = "tcp"
address = "127.0.0.1:%d"
[[device]]
id = "d%d"
link = "l%d"
driver = "modbus"
modbus = { unit = 1 }
  [[device.poll]]
  name = "p"
  every = "1s"
  points = [{ name = "n", address = "holding:0", type = "uint32" }]
`, i, slavePort, i, i)
	}
	fmt.Fprintf(&text, "[[route]]\nname = \"all\"\nto = [\"local\"]\n[[upstream]]\nname = \"local\"\nkind = \"file\"\nfile = { path = %q }\n", filepath.Join(dir, "out.jsonl"))
	config, admin := configure(t, text.String())
	a := runBinary(t, small, config, admin)
	eventually(t, 30*time.Second, "readings of all ten devices", func() bool { return a.lastSeq("d9") >= 5 })
	before, begin := a.written(t), time.Now()
	eventually(t, 60*time.Second, "twenty more rounds", func() bool { return a.lastSeq("d9") >= 25 })
	day := float64(a.written(t)-before) / time.Since(begin).Seconds() * 86400 / 1e9
	t.Logf("written: %.2f GB a day, the file upstream included", day)
	if day > 3 {
		t.Errorf("%.2f GB are written a day", day)
	}
	anonymous := a.memory(t, "RssAnon")
	t.Logf("anonymous memory: %d KiB", anonymous>>10)
	if anonymous > 30<<20 {
		t.Errorf("%d KiB of anonymous memory", anonymous>>10)
	}
}
