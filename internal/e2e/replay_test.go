package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// TestWhatIsKeptGoesOutAgainAndToUpstreamsThatAreNew delivers records, restarts the
// agent with two more upstreams, and asks for a part of the records once more.
func TestWhatIsKeptGoesOutAgainAndToUpstreamsThatAreNew(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), freePort(t)
	file := func(name string) string { return filepath.Join(dir, name+".jsonl") }
	upstream := func(name, start string) string {
		return fmt.Sprintf("[[upstream]]\nname = %q\nkind = \"file\"\nfile = { path = %q }\nstart = %q\n", name, file(name), start)
	}
	text := fmt.Sprintf(`
[agent]
id = "gw-01"
data_dir = "DATA"
[admin]
listen = "ADMIN"
[store]
keep = "24h"
[[listen]]
name = "plant"
transport = "tcp"
address = "127.0.0.1:%d"
`, port)
	config, admin := configure(t, text+"[[route]]\nname = \"all\"\nto = [\"first\"]\n"+upstream("first", "oldest"))
	a := run(t, config, admin)

	p, err := mcp.NewPublisher(mcp.PublisherConfig{Session: mcp.Config{Name: "press-1"}, Dialer: tcp.NewDialer(fmt.Sprintf("127.0.0.1:%d", port), nil)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = p.Run(ctx)
	}()
	begin := time.Date(2026, 11, 29, 6, 0, 0, 0, time.UTC)
	publish := func(from, to int) {
		for n := from; n <= to; n++ {
			r := record.Record{Device: "press-1", Stream: "state", Time: begin.Add(time.Duration(n) * time.Second), Points: []record.Point{{Name: "n", Value: record.Int(int64(n))}}}
			if err := p.Publish(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	arrived := func(name string) []reading {
		text, err := os.ReadFile(file(name))
		if err != nil {
			return nil
		}
		return readings(t, string(text))
	}
	publish(1, 100)
	eventually(t, 30*time.Second, "the first delivery", func() bool { return len(arrived("first")) == 100 })
	if code := a.stop(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}

	was, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	now := strings.NewReplacer(`to = ["first"]`, `to = ["first", "all", "new", "late"]`, `start = "oldest"`, `start = "newest"`).Replace(string(was)) +
		upstream("all", "oldest") + upstream("new", "newest") + upstream("late", "2026-11-29T06:01:00Z")
	if err := os.WriteFile(config, []byte(now), 0o600); err != nil {
		t.Fatal(err)
	}
	a = run(t, config, admin)
	publish(101, 110)
	for name, first := range map[string]uint64{"first": 1, "all": 1, "new": 101, "late": 60} {
		want := int(111 - first)
		eventually(t, 30*time.Second, "all that "+name+" wants", func() bool { return len(arrived(name)) >= want })
		if got := arrived(name); len(got) != want || got[0].Seq != first {
			t.Errorf("%s: %d readings from %d on", name, len(got), got[0].Seq)
		}
	}

	if code, out, stderr := runs(t, "queue", "replay", "-c", config, "--upstream", "first", "--from", "2026-11-29T06:00:21Z", "--to", "2026-11-29T06:00:41Z"); code != 0 {
		t.Fatalf("replay: %d %s %s", code, out, stderr)
	}
	eventually(t, 30*time.Second, "what is sent again", func() bool { return len(arrived("first")) == 130 })
	again := arrived("first")[110:]
	for i, r := range again {
		if r.Seq != uint64(21+i) || !r.Resent {
			t.Errorf("reading %d sent again is %+v", i, r)
		}
	}
	if slices.ContainsFunc(arrived("first")[:110], func(r reading) bool { return r.Resent }) || len(arrived("all")) != 110 {
		t.Error("others are marked, or another upstream got them too")
	}
	cancel()
	<-ran
	if code := a.stop(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
}
