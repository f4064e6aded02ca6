package store_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/sim/disk"
)

// Parameters of the long forms, in the environment; scripts/torture sets them.
const (
	powerRounds = "STORE_TEST_POWER_ROUNDS" // runs of the program, each on what a cut has left
	powerCuts   = "STORE_TEST_POWER_CUTS"   // cuts in each round
	powerSeed   = "STORE_TEST_POWER_SEED"   // of what is random in the program and the cuts; but not of its timing
	powerReplay = "STORE_TEST_POWER_REPLAY" // "trace cut seed directory", as a failure tells it
)

func parameter(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func TestAPowerCutAtAnyPlaceLosesNothing(t *testing.T) {
	t.Parallel()
	if replay(t) {
		return
	}
	seed := parameter(t, powerSeed, rand.Uint64())
	rounds, cuts := parameter(t, powerRounds, 3), parameter(t, powerCuts, 70)
	t.Logf("%s=%d", powerSeed, seed)
	var image *disk.Image
	found, replaced := newPromise(), 0
	for round := range rounds {
		r := rand.New(rand.NewPCG(seed, round))
		marks := found.marks()
		trace := workOn(t, disk.New(image, r.Uint64()), marks, "", r.Uint64())
		replaced += len(trace.Find(disk.Rename))
		cutter := trace.Cutter()
		places := choosePlaces(r, trace, len(marks), int(cuts))
		next := r.IntN(len(places))
		for i, at := range places {
			cutSeed := r.Uint64()
			here, err := checkCut(t, trace, cutter, at, cutSeed, labDir)
			if err != nil {
				t.Fatal(failed(t, trace, at, cutSeed, err, labDir))
			}
			if i == next {
				image, found = cutter.Image(at, cutSeed), here
			}
		}
	}
	if replaced <= int(rounds) {
		t.Errorf("in %d rounds the queue's file was replaced %d times: the test shows little", rounds, replaced)
	}
}

// workOn lets a program work on a disk, and returns what happened on it.
func workOn(t *testing.T, d *disk.Disk, marks []string, work string, seed uint64) *disk.Trace {
	t.Helper()
	for _, mark := range marks {
		d.Mark(mark)
	}
	dir := t.TempDir()
	unmount, err := d.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unmount()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), labMount+"="+dir, labWork+"="+work, fmt.Sprint(labSeed, "=", seed))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // to see where it hangs
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		trace := d.Trace()
		t.Fatalf("the program on the test disk ended with %v: %s\n%s", err, out.Bytes(), trace.Describe(trace.Len(), 20))
	}
	return d.Trace()
}

// choosePlaces returns where to cut: half of them anywhere, the others shortly
// after the start and close to where files are made, renamed, removed or changed
// in size.
func choosePlaces(r *rand.Rand, trace *disk.Trace, start, n int) (list []int) {
	rare := trace.Find(disk.Create | disk.Rename | disk.Unlink | disk.Resize)
	for range n {
		at := start + r.IntN(trace.Len()-start+1)
		switch dice := r.IntN(6); {
		case dice == 0:
			at = start + r.IntN(100)
		case dice < 3 && len(rare) > 0:
			at = rare[r.IntN(len(rare))] + r.IntN(12) - 4
		}
		list = append(list, min(max(at, start), trace.Len()))
	}
	slices.Sort(list)
	return list
}

// checkCut checks what a power cut leaves, within a directory of the disk.
func checkCut(t *testing.T, trace *disk.Trace, cutter *disk.Cutter, at int, seed uint64, within string) (*promise, error) {
	t.Helper()
	p := newPromise()
	var wrong error
	trace.Marks(at, func(_ int, text string) {
		if err := p.take(text); err != nil {
			wrong = err
		}
	})
	if wrong != nil {
		return nil, wrong
	}
	dir, err := os.MkdirTemp(inMemory(), "power")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := cutter.Image(at, seed).WriteTo(dir, within); err != nil {
		return nil, err
	}
	return p.check(t.Context(), dir)
}

// inMemory is a directory for temporary files; "": the usual one.
func inMemory() string {
	const shm = "/dev/shm"
	if info, err := os.Stat(shm); err == nil && info.IsDir() {
		return shm
	}
	return ""
}

// failed keeps the trace of a failure, and says how to see it again.
func failed(t *testing.T, trace *disk.Trace, at int, seed uint64, err error, within string) string {
	t.Helper()
	path := filepath.Join(os.TempDir(), fmt.Sprintf("power-%d-%d.trace", at, seed))
	if err := trace.Save(path); err != nil {
		t.Errorf("saving the trace: %v", err)
	}
	return fmt.Sprintf("a power cut at %d, with seed %d: %v\nbefore it:\n%ssee it again:\n%s=%q go test ./store -run %s",
		at, seed, err, trace.Describe(at, 20), powerReplay, fmt.Sprint(path, " ", at, " ", seed, " ", within), "TestAPowerCut")
}

// replay makes one cut again, if one is asked for.
func replay(t *testing.T) bool {
	t.Helper()
	text := os.Getenv(powerReplay)
	if text == "" {
		return false
	}
	var path, within string
	var at int
	var seed uint64
	if _, err := fmt.Sscan(text, &path, &at, &seed, &within); err != nil {
		t.Fatal(err)
	}
	trace, err := disk.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkCut(t, trace, trace.Cutter(), at, seed, within); err != nil {
		t.Errorf("%v\n%s", err, trace.Describe(at, 40))
	}
	return true
}
