package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// TestAFullDiskStopsAcknowledgementsAndNothingElse fills the disk of the queue
// while a device publishes, and makes room again.
func TestAFullDiskStopsAcknowledgementsAndNothingElse(t *testing.T) {
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Fatalf("a disk of 24 MiB takes root: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", disk).CombinedOutput(); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
	port := freePort(t)
	out := filepath.Join(t.TempDir(), "out.jsonl")
	config, admin := configure(t, fmt.Sprintf(`
[agent]
id = "gw-01"
data_dir = %q
[admin]
listen = "ADMIN"
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
`, disk, port, out))
	a := run(t, config, admin)
	p, err := mcp.NewPublisher(mcp.PublisherConfig{
		Session: mcp.Config{Name: "press-1"}, Dialer: tcp.NewDialer(fmt.Sprintf("127.0.0.1:%d", port), nil),
		RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	defer func() { cancel(); <-ended; <-ended }()
	go func() { _ = p.Run(ctx); ended <- struct{}{} }()
	go func() {
		defer func() { ended <- struct{}{} }()
		for n := int64(1); p.Publish(ctx, record.Record{
			Device: "press-1", Stream: "s", Time: time.Now(), Payload: make([]byte, 1000), ContentType: "application/octet-stream",
			Points: []record.Point{{Name: "n", Value: record.Int(n)}},
		}) == nil; n++ {
		}
	}()
	eventually(t, 20*time.Second, "records to flow", func() bool { return p.Stats().Acknowledged > 1000 })

	ballast := filepath.Join(disk, "ballast")
	if out, err := exec.Command("sh", "-c", "cat /dev/zero >"+ballast+" 2>/dev/null; true").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	// The queue reuses the room that it has; cut the way out as well, so that it
	// needs more.
	if err := os.Rename(filepath.Dir(out), filepath.Dir(out)+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "the agent to say that it is not ready", func() bool {
		code, _ := a.get("/readyz")
		return code == 503
	})
	var stopped uint64
	eventually(t, 30*time.Second, "acknowledgements to stop", func() bool {
		before := stopped
		stopped = p.Stats().Acknowledged
		return before == stopped
	})
	if code, body := a.get("/healthz"); code != 200 {
		t.Errorf("a full disk is not a stuck agent: %d %s", code, body)
	}

	if err := os.Rename(filepath.Dir(out)+".away", filepath.Dir(out)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "records to flow again", func() bool { return p.Stats().Acknowledged > stopped+1000 })
	acked := p.Stats().Acknowledged
	var list []reading
	eventually(t, 60*time.Second, "everything in the file", func() bool {
		text, err := os.ReadFile(out)
		if err != nil {
			return false
		}
		list = readings(t, string(text))
		return uint64(len(list)) >= acked
	})
	last, _ := inOrder(t, list)
	if last["press-1"] < acked {
		t.Errorf("%d acknowledged, %d in the file", acked, last["press-1"])
	}
}
