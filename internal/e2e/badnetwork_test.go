package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/sim/mcpdevice"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/quic"
	"github.com/mcp-edge/edge-agent/transport/serial"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// TestEveryAcknowledgedRecordArrivesOnceOverBadLinks has one device on each
// transport publish through a link that loses a fifth of all datagrams, repeats
// some, delays each by up to 300 ms, and is cut for 30 s; on the serial line a
// bit flips every 10 kB.
func TestEveryAcknowledgedRecordArrivesOnceOverBadLinks(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp", "udp", "quic", "serial"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			overABadLink(t, transport)
		})
	}
}

// overABadLink publishes records before, while and after the link is cut.
func overABadLink(t *testing.T, kind string) {
	const records = 2000
	var a *agent
	var link *badLink
	var out string
	device := mcp.PublisherConfig{Session: mcp.Config{Name: "press-7"}, RetryMax: time.Second}
	switch kind {
	case "serial":
		var near, far string
		link, near, far = badSerial(t)
		a, out = serialPlant(t, near)
		device.Session.Role = mcp.Server // on a serial line the agent says HELLO
		device.Dialer = serial.NewDialer(far, serial.Config{Baud: 115200, DataBits: 8, Parity: "none", StopBits: 1})
		device.Framer = func() transport.Framer { return mcp.NewSerialFramer(0, 0) }
	case "tcp":
		var address string
		a, address, out = plant(t, "tcp", "")
		link = badTCP(t, address)
		device.Dialer = tcp.NewDialer(link.address, nil)
	case "udp":
		var address string
		a, address, out = plant(t, "udp", "")
		link = badUDP(t, address)
		device.Dialer = udp.NewDialer(link.address, udp.Config{})
	case "quic":
		var address string
		ca := transporttest.NewCA(t)
		a, address, out = plant(t, "quic", serverTLS(t, ca))
		link = badUDP(t, address)
		device.Dialer = quic.NewDialer(link.address, ca.Client())
	}
	d, err := mcpdevice.New(mcpdevice.Config{Publisher: device, Count: records, Every: 15 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	go link.cutFor(ctx, 8*time.Second, 30*time.Second)
	began := time.Now()
	if err := d.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if produced, acknowledged := d.Stats(); acknowledged != records {
		t.Fatalf("%d of %d records are acknowledged after %v; the link passed %d and dropped %d",
			acknowledged, produced, time.Since(began), link.passed.Load(), link.dropped.Load())
	}
	t.Logf("%d records in %v; the link passed %d and dropped %d", records, time.Since(began).Round(time.Second), link.passed.Load(), link.dropped.Load())
	list := delivered(t, out, "press-7", records)
	next := 1
	for _, r := range list {
		if r.Stream != mcpdevice.Stream {
			continue
		}
		if got := r.Values[mcpdevice.Point].String(); got != fmt.Sprint(next) {
			t.Fatalf("record %s comes where %d should be", got, next)
		}
		next++
	}
	if next != records+1 {
		t.Errorf("%d records arrived", next-1)
	}
	if code := a.stop(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
}

// serialPlant is an agent with an MCP device on a serial line.
func serialPlant(t *testing.T, device string) (a *agent, out string) {
	t.Helper()
	out = filepath.Join(t.TempDir(), "out.jsonl")
	config, admin := configure(t, fmt.Sprintf(`
[agent]
id = "gw-01"
data_dir = "DATA"
[admin]
listen = "ADMIN"
[[link]]
name = "com1"
transport = "serial"
address = %q
serial = { baud = 115200 }
[[device]]
id = "press-7"
link = "com1"
driver = "mcp"
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = %q }
`, device, out))
	return run(t, config, admin), out
}

// serverTLS is the tls table of a listener.
func serverTLS(t *testing.T, ca *transporttest.CA) string {
	t.Helper()
	dir := t.TempDir()
	ca.Files(dir)
	return fmt.Sprintf("tls = { cert = %q, key = %q }", filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
}
