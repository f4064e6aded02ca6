package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// BenchmarkIdleDevices connects 10,000 devices that say HELLO and then nothing
// but heartbeats, and tells what each takes of the agent's memory: as resident
// after a minute, all of the process counted.
func BenchmarkIdleDevices(b *testing.B) {
	const devices = 10_000
	fast := filepath.Join(b.TempDir(), "edge-agent")
	if out, err := exec.Command("go", "build", "-o", fast, "../../cmd/edge-agent").CombinedOutput(); err != nil {
		b.Fatalf("%v %s", err, out)
	}
	for b.Loop() {
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
max_connections_per_address = 20000
max_handshakes = 20000
heartbeat_interval = "10s"
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = %q }
`, port, filepath.Join(b.TempDir(), "out.jsonl")))
		a := runBinary(b, fast, config, admin)
		before := a.memory(b, "VmRSS")
		ctx, cancel := context.WithCancel(b.Context())
		var running sync.WaitGroup
		dialer := tcp.NewDialer(fmt.Sprintf("127.0.0.1:%d", port), nil)
		for i := range devices {
			conn, err := dialer.Dial(ctx, mcp.NewStreamFramer(0, 0))
			if err != nil {
				b.Fatal(err)
			}
			s := connectIdle(b, conn, "device-"+strconv.Itoa(i))
			running.Go(func() { _ = s.Run(ctx) })
			<-s.Opened()
		}
		<-time.After(65 * time.Second)
		after := a.memory(b, "VmRSS")
		b.ReportMetric(float64(after-before)/devices, "resident-B/device")
		b.ReportMetric(0, "ns/op")
		cancel()
		running.Wait()
		a.kill()
	}
}

func connectIdle(tb testing.TB, conn transport.Conn, name string) *mcp.Session {
	tb.Helper()
	outbox, err := mcp.NewOutbox(mcp.OutboxConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	return mcp.NewSession(conn, mcp.Config{Name: name, Epoch: 1, Outboxes: []*mcp.Outbox{outbox}}, mcp.NoHandler{})
}
