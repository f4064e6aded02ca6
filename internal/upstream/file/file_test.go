package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// out is an upstream under test and its file.
type out struct {
	*Upstream
	path string
	stop func()
}

// start runs an upstream on path until the test ends or stop is called.
func start(t testing.TB, path string) *out {
	t.Helper()
	u := New(Config{Path: path}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- u.Run(ctx) }()
	stopped := false
	o := &out{Upstream: u, path: path, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}}
	t.Cleanup(o.stop)
	return o
}

func (o *out) send(t testing.TB, from, to int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := o.Send(ctx, records(from, to)); err != nil {
		t.Fatal(err)
	}
}

// waitFor polls the status until it is as wanted.
func (o *out) waitFor(t testing.TB, connected bool, reason string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		s := o.Status()
		if s.Connected == connected && strings.Contains(s.Reason, reason) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %+v, want connected %t and a reason with %q", s, connected, reason)
		}
	}
}

func records(from, to int) []record.Record {
	batch := make([]record.Record, 0, to-from+1)
	for n := from; n <= to; n++ {
		batch = append(batch, record.Record{Agent: "gw", Epoch: 1, Device: "d", Stream: "s", Seq: uint64(n), Time: time.Unix(1, 0)})
	}
	return batch
}

// wantLines checks that the file holds the records from..to, each once, and
// nothing else.
func wantLines(t testing.TB, path string, from, to int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	if last := len(lines) - 1; lines[last] != "" {
		t.Errorf("torn last line %q", lines[last])
	} else {
		lines = lines[:last]
	}
	var seqs []int
	for _, line := range lines {
		var r struct {
			Seq int `json:"seq"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("%v: %q", err, line)
		}
		seqs = append(seqs, r.Seq)
	}
	for i, seq := range seqs {
		if seq != from+i {
			t.Fatalf("line %d holds record %d, want %d", i+1, seq, from+i)
		}
	}
	if len(seqs) != to-from+1 {
		t.Errorf("%d lines, want the records %d to %d", len(seqs), from, to)
	}
}

func TestWhatWasSentStandsInTheFileInOrder(t *testing.T) {
	o := start(t, filepath.Join(t.TempDir(), "out.jsonl"))
	o.send(t, 1, 100)
	o.send(t, 101, 150)
	wantLines(t, o.path, 1, 150)
	info, err := os.Stat(o.path)
	if err != nil || info.Mode().Perm()&0o137 != 0 {
		t.Errorf("mode %v, %v: want no more than 0640", info.Mode(), err)
	}
}

func TestATornLastLineIsCutAtStart(t *testing.T) {
	for name, torn := range map[string]string{
		"nothing":               "",
		"half a line":           `{"agent":"gw","seq":`,
		"more than a block":     strings.Repeat("x", 200_000),
		"zeros of a lost write": strings.Repeat("\x00", 4096),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.jsonl")
			first := start(t, path)
			first.send(t, 1, 3)
			first.stop()
			appendTo(t, path, torn)
			start(t, path).send(t, 4, 5)
			wantLines(t, path, 1, 5)
		})
	}
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestAFileThatIsAllOneTornLineIsEmptied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	appendTo(t, path, `{"agent":"g`)
	start(t, path).send(t, 1, 1)
	wantLines(t, path, 1, 1)
}

func TestAMissingFolderIsWaitedFor(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "later")
	o := start(t, filepath.Join(folder, "out.jsonl"))
	o.waitFor(t, false, "make its folder")
	if err := os.Mkdir(folder, 0o750); err != nil {
		t.Fatal(err)
	}
	o.send(t, 1, 2)
	o.waitFor(t, true, "")
	wantLines(t, o.path, 1, 2)
}

func TestWhatIsNoFileIsRefusedWithAReason(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, pipe).waitFor(t, false, "not a regular file")
	start(t, t.TempDir()).waitFor(t, false, "is a directory")
}

func TestASecondAgentWaitsUntilTheFirstHasGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	first := start(t, path)
	first.send(t, 1, 1)
	second := start(t, path)
	second.waitFor(t, false, "another process has it locked")
	first.stop()
	second.send(t, 2, 2)
	wantLines(t, path, 1, 2)
}

func TestAFullDiskLeavesNoHalfLineAndWritingResumes(t *testing.T) {
	if inChildProcess(t) {
		return // the limit holds for a whole process, so it gets one of its own
	}
	o := start(t, filepath.Join(t.TempDir(), "out.jsonl"))
	o.send(t, 1, 10)
	full := limitFileSize(t, sizeOf(t, o.path)+1000) // in the midst of a line
	sent := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { sent <- o.Send(ctx, records(11, 100)) }()
	o.waitFor(t, false, "file too large")
	wantLines(t, o.path, 1, 10)
	full()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	wantLines(t, o.path, 1, 100)
}

// inChildProcess runs the calling test again in a process of its own, and tells
// the first process that this is done.
func inChildProcess(t *testing.T) bool {
	t.Helper()
	const mark = "EDGE_AGENT_TEST_CHILD"
	if os.Getenv(mark) != "" {
		return false
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), mark+"=1")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return true
}

func sizeOf(t testing.TB, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return uint64(info.Size())
}

// limitFileSize makes every write of this process fail beyond size, after
// writing what fits, as a full disk does; the returned function lifts it.
func limitFileSize(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(limit unix.Rlimit) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.Rlimit{Cur: size, Max: before.Max})
	lift = func() { set(before) }
	t.Cleanup(lift)
	return lift
}

func TestAfterAFailedSyncTheBatchIsWrittenAnew(t *testing.T) {
	o := start(t, filepath.Join(t.TempDir(), "out.jsonl"))
	o.send(t, 1, 10)
	fails := 2
	<-o.turn
	var sizes []uint64 // of the file at each sync
	o.journal.sync = func(f *os.File) error {
		sizes = append(sizes, sizeOf(t, f.Name()))
		if fails--; fails >= 0 {
			return syscall.EIO
		}
		return syncData(f)
	}
	o.turn <- struct{}{}
	before := sizeOf(t, o.path)
	o.send(t, 11, 20)
	wantLines(t, o.path, 1, 20)
	after := sizeOf(t, o.path)
	if fmt.Sprint(sizes) != fmt.Sprint([]uint64{after, after, after}) || before == after {
		t.Errorf("size at the syncs %v: every try must write all of %d to %d again", sizes, before, after)
	}
}

func TestARotatedFileIsLeftWholeAndANewOneBegun(t *testing.T) {
	for name, rotate := range map[string]func(path string) error{
		"moved":   func(path string) error { return os.Rename(path, path+".1") },
		"deleted": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, nil, 0o640))
		},
		"copied and truncated": func(path string) error {
			data, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path+".1", data, 0o640), os.Truncate(path, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := start(t, filepath.Join(t.TempDir(), "out.jsonl"))
			o.send(t, 1, 10)
			if err := rotate(o.path); err != nil {
				t.Fatal(err)
			}
			o.send(t, 11, 20)
			wantLines(t, o.path, 11, 20)
			if name != "deleted" {
				wantLines(t, o.path+".1", 1, 10)
			}
		})
	}
}

func TestSendEndsWithItsContextAndWithRun(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no", "out.jsonl")
	o := start(t, missing)
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() { sent <- o.Send(ctx, records(1, 1)) }()
	o.waitFor(t, false, "make its folder")
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("Send after its context ended: %v", err)
	}
	go func() { sent <- o.Send(t.Context(), records(1, 1)) }()
	o.stop()
	if err := <-sent; !errors.Is(err, errClosed) {
		t.Errorf("Send after Run ended: %v", err)
	}
}

func TestARelativePathIsRefused(t *testing.T) {
	for path, want := range map[string]int{"/var/lib/out.jsonl": 0, "out.jsonl": 1} {
		got := 0
		(&Config{Path: path}).Validate(func(string, string) { got++ })
		if got != want {
			t.Errorf("%q: %d problems", path, got)
		}
	}
}

// BenchmarkSend is a batch of raw payloads of 256 B on its way to the disk.
func BenchmarkSend(b *testing.B) {
	o := start(b, filepath.Join(b.TempDir(), "out.jsonl"))
	const size = 4096
	batch := records(1, size)
	for i := range batch {
		batch[i].Payload, batch[i].ContentType = make([]byte, 256), "application/octet-stream"
	}
	b.SetBytes(256)
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ResetTimer()
	for n := 0; n < b.N; n += size {
		if err := o.Send(b.Context(), batch[:min(size, b.N-n)]); err != nil {
			b.Fatal(err)
		}
		if n%(64*size) == 0 {
			_ = os.Truncate(o.path, 0)
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
