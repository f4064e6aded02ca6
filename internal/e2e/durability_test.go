package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// TestAKillCostsEachLevelOfDurabilityWhatTheDocumentsSay publishes to a listener of
// each level while the agent is killed. What "sync" and "delayed" acknowledged is
// all there. Of "memory" the newest may be missing at each kill: what is there of an
// epoch begins with its first record and has no hole.
func TestAKillCostsEachLevelOfDurabilityWhatTheDocumentsSay(t *testing.T) {
	t.Parallel()
	const kills = 6
	levels := []string{"sync", "delayed", "memory"}
	out := filepath.Join(t.TempDir(), "out.jsonl")
	text := fmt.Sprintf(`
[agent]
id = "gw-01"
data_dir = "DATA"
[admin]
listen = "ADMIN"
[store]
commit_delay = "60ms"
memory_size = "64KiB"
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = %q }
`, out)
	ports := make([]int, len(levels))
	for i, level := range levels {
		ports[i] = freePort(t)
		text += fmt.Sprintf("[[listen]]\nname = %q\ntransport = \"tcp\"\naddress = \"127.0.0.1:%d\"\ndurability = %q\n", level, ports[i], level)
	}
	config, admin := configure(t, text)

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	publishers := make([]*mcp.Publisher, len(levels))
	for i, level := range levels {
		p, err := mcp.NewPublisher(mcp.PublisherConfig{
			Session:  mcp.Config{Name: level},
			Dialer:   tcp.NewDialer(fmt.Sprintf("127.0.0.1:%d", ports[i]), nil),
			RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		publishers[i] = p
		running.Go(func() { _ = p.Run(ctx) })
		running.Go(func() { produce(ctx, p, level) })
	}
	for range kills {
		a := run(t, config, admin)
		<-time.After(200*time.Millisecond + rand.N(200*time.Millisecond))
		a.kill()
	}
	a := run(t, config, admin)
	flush, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	for i, p := range publishers {
		if err := p.Flush(flush); err != nil {
			t.Fatalf("%s: %v", levels[i], err)
		}
	}
	cancel()
	running.Wait()
	if code := a.stop(); code != 0 { // delivers what is there
		t.Errorf("the agent ended with %d", code)
	}
	list, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	all := readings(t, string(list))
	for i, level := range levels {
		here := slices.DeleteFunc(slices.Clone(all), func(r reading) bool { return r.Device != level })
		acknowledged := publishers[i].Stats().Acknowledged
		lost := missingOf(here, acknowledged)
		t.Logf("%s: %d acknowledged, %d lost by %d kills", level, acknowledged, lost, kills)
		if acknowledged < 100 || level != "memory" && lost > 0 {
			t.Errorf("%s: %d of %d records are lost", level, lost, acknowledged)
		}
		epochs := epochsOf(t, here)
		// A record takes 128 bytes at least, and as much may be on its way out.
		if most := kills * 2 * (64 << 10) / 128; lost > most || level == "memory" && epochs < 2 || level != "memory" && epochs != 1 {
			t.Errorf("%s: %d lost, %d epochs", level, lost, epochs)
		}
	}
}

// missingOf counts the numbers up to last, as the device gave them, that are not
// there.
func missingOf(list []reading, last uint64) (n int) {
	seen := make(map[string]bool)
	for _, r := range list {
		seen[r.Values["n"].String()] = true
	}
	for number := uint64(1); number <= last; number++ {
		if !seen[strconv.FormatUint(number, 10)] {
			n++
		}
	}
	return n
}

// epochsOf counts the epochs of one device's records, and checks the order in each.
func epochsOf(t *testing.T, list []reading) int {
	t.Helper()
	byEpoch := make(map[string][]reading)
	for _, r := range list {
		byEpoch[r.Epoch] = append(byEpoch[r.Epoch], r)
	}
	for _, of := range byEpoch {
		inOrder(t, of)
	}
	return len(byEpoch)
}
