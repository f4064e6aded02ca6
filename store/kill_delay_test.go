package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

// childPolls, in the environment, is the directory of a process that stores as polls
// do: what Append has returned for counts as accepted.
const childPolls = "STORE_TEST_CHILD_POLLS"

const pollDelay = 300 * time.Millisecond

func pollConfig() store.Config { return store.Config{MaxSize: 8 << 20, CommitDelay: pollDelay} }

func pollForEver(dir string) error {
	s, err := store.Open(dir, pollConfig(), quiet())
	if err != nil {
		return err
	}
	go func() { _ = s.Run(context.Background()) }()
	source, err := s.Source(store.SourceKey{Device: "d", Stream: "s"})
	if err != nil {
		return err
	}
	for tick := time.Tick(time.Millisecond); ; <-tick {
		if _, err := s.Append(context.Background(), store.Batch{Entries: []store.Entry{{Source: source}}, Delay: true}); err != nil {
			return err
		}
		fmt.Printf("%d\n", time.Now().UnixNano())
	}
}

// A kill costs polled readings of commit_delay at most, and of the commit under way.
func TestAKillCostsPolledReadingsOfTheCommitDelayAtMost(t *testing.T) {
	dir := t.TempDir()
	total := uint64(0)
	lost := uint64(0)
	for range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childPolls+"="+dir)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var accepted []int64 // when
		var killed time.Time
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			var at int64
			if n, err := fmt.Sscanf(lines.Text()+"\n", "%d\n", &at); err == nil && n == 1 {
				accepted = append(accepted, at)
			}
			if killed.IsZero() && len(accepted) > 0 && at-accepted[0] > int64(2*pollDelay) {
				killed = time.Now()
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		s, err := store.Open(dir, pollConfig(), quiet())
		if err != nil {
			t.Fatal(err)
		}
		last := uint64(0)
		for _, d := range s.Devices() {
			last = d.Last
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		stored := int(last - total)
		if missing := len(accepted) - stored; missing > 0 {
			lost += uint64(missing)
			age := killed.Sub(time.Unix(0, accepted[stored]))
			t.Logf("%d accepted, %d lost, the oldest %v before the kill", len(accepted), missing, age)
			// A slow disk's commit comes on top.
			if age > pollDelay+2*time.Second {
				t.Errorf("a reading was lost that was %v old", age)
			}
		}
		if stored == 0 {
			t.Errorf("nothing of %d was stored", len(accepted))
		}
		total = last
	}
	if lost == 0 {
		t.Error("nothing was lost at all: the test shows nothing")
	}
}
