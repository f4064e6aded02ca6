package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
)

// The plant of BenchmarkScale: so many Modbus TCP devices, each on a connection
// of its own and polled each second.
const (
	scaleDevices = 10_000
	scaleEvery   = time.Second
	scaleWarmup  = 45 * time.Second // by then all are polled, and what the start has left behind is given back
	scaleWindow  = 60 * time.Second // that is measured
)

// farmPort, when set in the environment, makes this test binary the slaves of
// BenchmarkScale: a process of its own, as devices are.
const farmPort = "EDGE_AGENT_FARM_PORT"

// BenchmarkScale polls 10,000 Modbus TCP devices each second, each on a connection
// of its own, simulated in another process, through the store to the file
// upstream. It tells what both processes take, and how late the slaves were
// asked. Run it with -benchtime 1x.
func BenchmarkScale(b *testing.B) {
	b.Setenv("GOMAXPROCS", "2") // of the agent and of the slaves
	fast, err := shippedBinary()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		port, out := freePort(b), filepath.Join(b.TempDir(), "out.jsonl")
		config, admin := configure(b, scaleConfig(port, out))
		slaves := startFarm(b, port)
		a := runBinary(b, fast, config, admin)
		<-time.After(scaleWarmup)

		slaves.mark(b)
		began, agentCPU, slavesCPU, memory := time.Now(), a.cpu(b), cpuOf(b, slaves.cmd.Process.Pid), 0
		for tick := time.NewTicker(time.Second); time.Since(began) < scaleWindow; <-tick.C {
			memory = max(memory, a.memory(b, "RssAnon"))
		}
		took := time.Since(began).Seconds()
		agentCPU, slavesCPU = a.cpu(b)-agentCPU, cpuOf(b, slaves.cmd.Process.Pid)-slavesCPU
		slaves.mark(b)
		retries := a.retries(b)
		if code := a.stop(); code != 0 {
			b.Fatalf("the agent ended with %d:\n%s", code, tail(a.output(), 2000))
		}
		r := slaves.report(b)
		lines, bad := linesIn(b, out)
		b.Logf("%+v, %d of the requests were repeated; %d records were delivered, %d of them not good", r, retries, lines, bad)
		if r.Asked != scaleDevices || r.Missing > 0 || r.Repeated > 0 {
			b.Error("rounds were missed, or asked for twice")
		}
		if bad > 0 || lines+retries != r.Answers {
			b.Error("records were lost")
		}
		b.ReportMetric(agentCPU/took, "agent-cores")
		b.ReportMetric(slavesCPU/took, "slaves-cores")
		b.ReportMetric(float64(memory)/scaleDevices, "anonymous-B/device")
		b.ReportMetric(float64(r.P50)/1e6, "late-p50-ms")
		b.ReportMetric(float64(r.P99)/1e6, "late-p99-ms")
		b.ReportMetric(float64(r.Max)/1e6, "late-max-ms")
		b.ReportMetric(float64(r.Rounds)/took, "rounds/s")
		b.ReportMetric(0, "ns/op")
	}
}

func scaleConfig(port int, out string) string {
	var text strings.Builder
	text.WriteString("[agent]\nid = \"gw-01\"\ndata_dir = \"DATA\"\n[admin]\nlisten = \"ADMIN\"\n[log]\nlevel = \"warn\"\n")
	for i := range scaleDevices {
		fmt.Fprintf(&text, `
[[link]]
name = "line-%[1]d"
transport = "tcp"
address = "127.0.0.1:%[2]d"
[[device]]
id = "drive-%[1]d"
link = "line-%[1]d"
driver = "modbus"
modbus = { unit = 1 }
  [[device.poll]]
  name = "state"
  every = %[3]q
  points = [
    { name = "speed", address = "holding:0", type = "uint16", scale = 0.1, unit = "Hz" },
    { name = "current", address = "holding:1", type = "uint16", scale = 0.01, unit = "A" },
    { name = "energy", address = "holding:2", type = "uint32", unit = "kWh" },
    { name = "fault", address = "holding:4", type = "uint16" },
  ]
`, i, port, scaleEvery.String())
	}
	fmt.Fprintf(&text, "[[route]]\nname = \"all\"\nto = [\"local\"]\n[[upstream]]\nname = \"local\"\nkind = \"file\"\nfile = { path = %q }\n", out)
	return text.String()
}

// retries is how many requests the agent has repeated, on all links.
func (a *agent) retries(tb testing.TB) (n int) {
	tb.Helper()
	var links []struct {
		Retries int `json:"retries"`
	}
	eventually(tb, time.Minute, "the state of the links", func() bool {
		_, body := a.get("/api/v1/links")
		return json.Unmarshal(body, &links) == nil
	})
	for _, l := range links {
		n += l.Retries
	}
	return n
}

// linesIn counts the records in a file, and those that are not good.
func linesIn(tb testing.TB, path string) (lines, bad int) {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		lines++
		if !bytes.Contains(scan.Bytes(), []byte(`"quality":"good"`)) {
			bad++
		}
	}
	if err := scan.Err(); err != nil {
		tb.Fatal(err)
	}
	return lines, bad
}

// farm is the process of the slaves, as the test sees it.
type farm struct {
	cmd     *exec.Cmd
	printed bytes.Buffer
}

func startFarm(tb testing.TB, port int) *farm {
	tb.Helper()
	f := &farm{cmd: exec.Command(os.Args[0])}
	f.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", farmPort, port))
	f.cmd.Stdout, f.cmd.Stderr = &f.printed, os.Stderr
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := f.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.cmd.Process.Kill() }) // it has ended, unless the test failed
	return f
}

// mark tells the slaves where the time to report on begins, and where it ends.
func (f *farm) mark(tb testing.TB) {
	tb.Helper()
	if err := f.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		tb.Fatal(err)
	}
}

// report ends the slaves.
func (f *farm) report(tb testing.TB) (r farmReport) {
	tb.Helper()
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		tb.Fatal(err)
	}
	if err := f.cmd.Wait(); err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(f.printed.Bytes(), &r); err != nil {
		tb.Fatalf("%v in %s", err, f.printed.Bytes())
	}
	return r
}

// farmReport is what the slaves' process prints when it is told to end.
type farmReport struct {
	Answers int // in all; the rest is about the time between the marks
	Asked   int // connections
	Rounds  int // requests
	Missing int // rounds without a request
	// Repeated requests of one round. A time-out does that.
	Repeated int
	// How much later than its phase a request came. The phase of a connection is
	// that of its earliest request, as nothing comes before it is due.
	P50, P99, Max time.Duration
}

// runFarm serves until SIGTERM, then prints its report.
func runFarm(port string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	marks := make(chan os.Signal, 2)
	signal.Notify(marks, syscall.SIGUSR1)
	start := time.Now()
	var requests [][]time.Duration // since start, by connection
	between := make(chan [2]time.Duration, 1)
	go func() {
		var at [2]time.Duration
		for i := range at {
			select {
			case <-marks:
				at[i] = time.Since(start)
			case <-ctx.Done():
			}
		}
		between <- at
	}()
	slaves := modbusslave.Farm{OnRequest: func(conn int, at time.Time) {
		for conn >= len(requests) {
			requests = append(requests, nil)
		}
		requests[conn] = append(requests[conn], at.Sub(start))
	}}
	if err := slaves.Serve(ctx, ln.(*net.TCPListener)); err != nil {
		return err
	}
	at := <-between
	return json.NewEncoder(os.Stdout).Encode(reportOn(requests, at[0], at[1]))
}

func reportOn(requests [][]time.Duration, from, to time.Duration) (r farmReport) {
	var late []time.Duration
	for _, all := range requests {
		r.Answers += len(all)
		begin, _ := slices.BinarySearch(all, from)
		end, _ := slices.BinarySearch(all, to)
		if begin == end {
			continue
		}
		in := all[begin:end]
		r.Asked++
		r.Rounds += len(in)
		offsets := make([]time.Duration, len(in))
		rounds := make(map[time.Duration]bool, len(in))
		for i, at := range in {
			n := (at - in[0] + scaleEvery/2) / scaleEvery // the nearest one
			rounds[n] = true
			offsets[i] = at - in[0] - n*scaleEvery
		}
		r.Missing += int((in[len(in)-1]-in[0]+scaleEvery/2)/scaleEvery) + 1 - len(rounds)
		r.Repeated += len(in) - len(rounds)
		earliest := slices.Min(offsets)
		for _, o := range offsets {
			late = append(late, o-earliest)
		}
	}
	if len(late) > 0 {
		slices.Sort(late)
		r.P50, r.P99, r.Max = late[len(late)/2], late[len(late)*99/100], late[len(late)-1]
	}
	return r
}
