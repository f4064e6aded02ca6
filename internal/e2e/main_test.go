// Package e2e tests the agent as it is shipped: the binary, with real peers
// that nobody wrote here.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var binary string // the agent

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if address := os.Getenv(loadAddress); address != "" {
			if err := generateLoad(context.Background(), address); err != nil {
				fmt.Fprintln(os.Stderr, "load:", err)
				return 1
			}
			return 0
		}
		if port := os.Getenv(farmPort); port != "" {
			if err := runFarm(port); err != nil {
				fmt.Fprintln(os.Stderr, "farm:", err)
				return 1
			}
			return 0
		}
		if attack := os.Getenv(attackName); attack != "" {
			if err := runAttack(attack); err != nil {
				fmt.Fprintln(os.Stderr, "attack:", err)
			}
			return 1
		}
		dir, err := os.MkdirTemp("", "edge-agent-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "edge-agent")
		if out, err := exec.Command("go", "build", "-race", "-o", binary, "../../cmd/edge-agent").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the agent: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// process is a program that the test started, with what it printed.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// launch starts a program; it is killed when the test ends.
func launch(t testing.TB, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v (./scripts/test installs the peers)", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // its code is read from ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		ended := p.ended()
		p.kill()
		if t.Failed() && !ended {
			t.Logf("%s printed:\n%s", filepath.Base(name), tail(p.output(), 4000))
		}
	})
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// stop asks the program to end and returns its exit code.
func (p *process) stop() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("stopping %s: %v", p.cmd.Path, err)
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("%s did not stop within 30 s", p.cmd.Path)
	}
	return p.cmd.ProcessState.ExitCode()
}

// says waits until the program has printed text.
func (p *process) says(text string) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, p.cmd.Path+" to say "+text, func() bool {
		if p.ended() {
			p.t.Fatalf("%s ended:\n%s", p.cmd.Path, p.output())
		}
		return strings.Contains(p.output(), text)
	})
}

// eventually looks again and again until ok.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// freePort is a TCP port that nobody listened on a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// agent is a running edge-agent and its data directory.
type agent struct {
	*process
	admin  string
	config string
}

// configure writes a configuration file; ADMIN and DATA stand for the admin
// address and the data directory.
func configure(t testing.TB, text string) (path, admin string) {
	t.Helper()
	dir := t.TempDir()
	admin = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	text = strings.NewReplacer("ADMIN", admin, "DATA", filepath.Join(dir, "data")).Replace(text)
	path = filepath.Join(dir, "edge-agent.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, admin
}

// run starts the agent and waits until it is ready.
func run(t testing.TB, config, admin string) *agent {
	t.Helper()
	return runBinary(t, binary, config, admin)
}

func runBinary(t testing.TB, binary, config, admin string) *agent {
	t.Helper()
	a := &agent{process: launch(t, binary, "run", "-c", config), admin: "http://" + admin, config: config}
	eventually(t, 30*time.Second, "the agent to be ready", func() bool {
		if a.ended() {
			t.Fatalf("the agent ended:\n%s", a.output())
		}
		code, _ := a.get("/readyz")
		return code == http.StatusOK
	})
	return a
}

func (a *agent) get(path string) (code int, body []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.admin+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	if err != nil {
		return 0, nil
	}
	return res.StatusCode, body
}

// memory is one of the agent's figures in proc(5), status, in bytes: "VmRSS" is
// what it has resident, "VmHWM" the most that it ever had, "RssAnon" without files.
func (a *agent) memory(tb testing.TB, figure string) int {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if kib, ok := strings.CutPrefix(line, figure+":"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kib), " kB"))
			if err != nil {
				tb.Fatal(err)
			}
			return n << 10
		}
	}
	tb.Fatalf("there is no %s", figure)
	return 0
}

// lastSeq asks the agent how many records of a device it has stored.
func (a *agent) lastSeq(device string) uint64 {
	_, body := a.get("/api/v1/devices")
	var devices []struct {
		ID      string `json:"id"`
		LastSeq uint64 `json:"last_seq"`
	}
	if json.Unmarshal(body, &devices) == nil {
		for _, d := range devices {
			if d.ID == device {
				return d.LastSeq
			}
		}
	}
	return 0
}

// reading is one line of what the agent delivers.
type reading struct {
	Device  string                  `json:"device"`
	Stream  string                  `json:"stream"`
	Epoch   string                  `json:"epoch"`
	Seq     uint64                  `json:"seq"`
	Quality string                  `json:"quality"`
	Values  map[string]json.Number  `json:"values"`
	Payload []byte                  `json:"payload"`
	Resent  bool                    `json:"resent"`
	Gap     *struct{ Count uint64 } `json:"gap"`
}

func readings(t *testing.T, text string) (list []reading) {
	t.Helper()
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "\n") {
			continue
		}
		var r reading
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		list = append(list, r)
	}
	return list
}

// inOrder checks that the first appearances of each device's numbers rise by
// one from 1, and returns the last of each. Repeats are counted.
func inOrder(t *testing.T, list []reading) (last map[string]uint64, repeats int) {
	t.Helper()
	last = make(map[string]uint64)
	for _, r := range list {
		switch {
		case r.Gap != nil:
			t.Errorf("a gap of %d for %s", r.Gap.Count, r.Device)
		case r.Seq <= last[r.Device]:
			repeats++
		case r.Seq != last[r.Device]+1:
			t.Errorf("%s: %d comes after %d", r.Device, r.Seq, last[r.Device])
			last[r.Device] = r.Seq
		default:
			last[r.Device] = r.Seq
		}
	}
	return last, repeats
}
