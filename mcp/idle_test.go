package mcp_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// What an idle session may cost the agent that accepted it.
const (
	idleBytes      = 10 << 10
	idleGoroutines = 1
)

// serverVariable makes the test binary a server of sessions: memory is measured
// in a process that does nothing else. Its value is the heartbeat's interval.
const serverVariable = "MCP_TEST_SERVER"

// serveIdle says where it listens, and how it is for each line that it reads.
func serveIdle(heartbeat string) error {
	interval, err := time.ParseDuration(heartbeat)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l, err := tcp.Listen(ctx, "127.0.0.1:0", func() transport.Framer { return mcp.NewStreamFramer(0, 0) }, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			cfg := mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 1, Heartbeat: interval}
			go func() { _ = mcp.NewSession(c, cfg, newReceiver()).Run(ctx) }()
		}
	}()
	fmt.Println(l.Endpoint()[len("tcp "):])
	for asked := bufio.NewScanner(os.Stdin); asked.Scan(); {
		debug.FreeOSMemory() // what the runtime does by itself, but over minutes
		resident, err := anonymousMemory()
		if err != nil {
			return err
		}
		fmt.Println(resident, runtime.NumGoroutine())
	}
	return nil
}

// anonymousMemory is what of this process is resident and not a file's, in bytes.
func anonymousMemory() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, line, _ := strings.Cut(string(status), "RssAnon:")
	var kib int
	_, err = fmt.Sscan(line, &kib)
	return kib << 10, err
}

// idleServer is the process of serveIdle.
type idleServer struct {
	address string
	ask     func() (bytes, goroutines int)
}

func startIdleServer(t testing.TB, heartbeat time.Duration) idleServer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), serverVariable+"="+heartbeat.String())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	s := idleServer{}
	answers := bufio.NewReader(out)
	if _, err := fmt.Fscanln(answers, &s.address); err != nil {
		t.Fatal(err)
	}
	s.ask = func() (bytes, goroutines int) {
		if _, err := fmt.Fprintln(in); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fscanln(answers, &bytes, &goroutines); err != nil {
			t.Fatal(err)
		}
		return bytes, goroutines
	}
	return s
}

// holdIdle opens sessions to the server, lets two heartbeats pass, and returns
// what each costs it.
func holdIdle(t testing.TB, sessions int, heartbeat time.Duration) (bytes, goroutines float64) {
	t.Helper()
	server := startIdleServer(t, heartbeat)
	bytesBefore, goroutinesBefore := server.ask()
	ctx, cancel := context.WithCancel(context.Background())
	var running, opening sync.WaitGroup
	defer running.Wait()
	defer cancel()
	dialer := tcp.NewDialer(server.address, nil)
	open := make([]*mcp.Session, sessions)
	for first := range 32 {
		opening.Go(func() {
			for i := first; i < sessions; i += 32 {
				conn, err := dialer.Dial(ctx, mcp.NewStreamFramer(0, 0))
				if err != nil {
					t.Error(err)
					return
				}
				s := mcp.NewSession(conn, mcp.Config{Name: fmt.Sprintf("press-%d", i), Epoch: 1, Heartbeat: heartbeat}, mcp.NoHandler{})
				open[i] = s
				running.Go(func() { _ = s.Run(ctx) })
				<-s.Opened()
			}
		})
	}
	opening.Wait()
	if t.Failed() {
		t.FailNow()
	}
	<-time.After(5 * heartbeat / 2)
	bytesAfter, goroutinesAfter := server.ask()
	for _, s := range open {
		if state, err := s.State(); state != mcp.Open {
			t.Fatalf("a session is %v: %v", state, err)
		}
	}
	return float64(bytesAfter-bytesBefore) / float64(sessions), float64(goroutinesAfter-goroutinesBefore) / float64(sessions)
}

func TestAnIdleSessionCostsOneGoroutineAndFewBytes(t *testing.T) {
	sessions := 2000
	if raceDetector {
		sessions = 300 // it is slow
	}
	bytes, goroutines := holdIdle(t, sessions, 2*time.Second)
	t.Logf("%.0f bytes and %.2f goroutines a session", bytes, goroutines)
	if goroutines > 1.05*idleGoroutines {
		t.Errorf("%.2f goroutines a session", goroutines)
	}
	if !raceDetector && bytes > idleBytes {
		t.Errorf("%.0f bytes a session, at most %d are wanted", bytes, idleBytes)
	}
}

// BenchmarkTenThousandIdleSessions reports what each costs the process that
// accepted it, with heartbeats going on.
func BenchmarkTenThousandIdleSessions(b *testing.B) {
	for b.Loop() {
		bytes, goroutines := holdIdle(b, 10_000, 10*time.Second)
		b.ReportMetric(bytes, "resident-B/session")
		b.ReportMetric(goroutines, "goroutines/session")
	}
	b.ReportMetric(0, "ns/op") // means nothing here
}
