package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

const kills = 50

// TestNoAcknowledgedRecordIsLostHoweverOftenTheAgentIsKilled sends numbered
// records from four devices over MCP while the agent is killed (SIGKILL) again
// and again at random moments. What was acknowledged must reach the file: a
// device forgets it, so nobody would send it again.
func TestNoAcknowledgedRecordIsLostHoweverOftenTheAgentIsKilled(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	out := filepath.Join(t.TempDir(), "out.jsonl")
	config, admin := configure(t, fmt.Sprintf(`
[agent]
id = "gw-01"
data_dir = "DATA"
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
`, port, out))

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	devices := []string{"press-1", "press-2", "press-3", "press-4"}
	publishers := make([]*mcp.Publisher, len(devices))
	for i, name := range devices {
		p, err := mcp.NewPublisher(mcp.PublisherConfig{
			Session:  mcp.Config{Name: name},
			Dialer:   tcp.NewDialer(fmt.Sprintf("127.0.0.1:%d", port), nil),
			RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		publishers[i] = p
		running.Go(func() { _ = p.Run(ctx) })
		running.Go(func() { produce(ctx, p, name) })
	}

	for range kills {
		a := run(t, config, admin)
		alive := time.NewTimer(time.Duration(rand.IntN(200)) * time.Millisecond)
		<-alive.C
		a.kill()
	}

	a := run(t, config, admin)
	flush, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	total := uint64(0)
	for i, p := range publishers {
		if err := p.Flush(flush); err != nil {
			t.Fatalf("%s: %v", devices[i], err)
		}
	}
	cancel()
	running.Wait()
	for _, p := range publishers {
		total += p.Stats().Acknowledged
	}
	if code := a.stop(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	a = run(t, config, admin)
	stored := make(map[string]uint64)
	for _, d := range devices {
		stored[d] = a.lastSeq(d)
	}
	var list []reading
	eventually(t, 60*time.Second, "everything in the file", func() bool {
		text, err := os.ReadFile(out)
		if err != nil {
			return false
		}
		list = readings(t, string(text))
		last := make(map[string]uint64)
		for _, r := range list {
			last[r.Device] = max(last[r.Device], r.Seq)
		}
		for d, n := range stored {
			if last[d] < n {
				return false
			}
		}
		return true
	})
	last, repeats := inOrder(t, list)
	for i, d := range devices {
		if acked := publishers[i].Stats().Acknowledged; last[d] < acked {
			t.Errorf("%s: %d acknowledged, %d in the file", d, acked, last[d])
		}
	}
	for _, r := range list {
		// A device numbers its records itself, and the agent stores each once:
		// the two numbers are the same, or something was lost or stored twice.
		if n, err := r.Values["n"].Int64(); err != nil || uint64(n) != r.Seq {
			t.Fatalf("record %d of %s has the device's number %v", r.Seq, r.Device, r.Values["n"])
		}
	}
	t.Logf("%d kills, %d records acknowledged, %d lines repeated", kills, total, repeats)
	if total < 1000 {
		t.Errorf("only %d records were acknowledged", total)
	}
}

// produce publishes n = 1, 2, 3 … until ctx ends.
func produce(ctx context.Context, p *mcp.Publisher, name string) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for n := int64(1); ; n++ {
		r := record.Record{
			Device: name, Stream: "state", Time: time.Now(),
			Points:  []record.Point{{Name: "n", Value: record.Int(n)}},
			Payload: make([]byte, rand.IntN(300)), ContentType: "application/octet-stream",
		}
		if p.Publish(ctx, r) != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
