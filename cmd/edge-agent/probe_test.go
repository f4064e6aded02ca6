package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/probe"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
)

// bus is a simulated RS-485 line at 19200 8O1 with two slaves, and the device
// file of a port on it that must be set so.
func bus(t *testing.T) string {
	t.Helper()
	l := wire.New(wire.Config{Baud: 19200})
	for _, unit := range []int{3, 17} {
		s := modbusslave.New(modbusslave.Config{Unit: unit})
		s.Set(modbus.Input, 0, 42)
		s.Attach(l)
	}
	port, err := l.OpenPort("probe")
	if err != nil {
		t.Fatal(err)
	}
	port.Wants(wire.Setting{Baud: 19200, OddParity: true, StopBits: 1})
	play(t, l.Run)
	return port.Path()
}

// play runs something until the test's end.
func play(t *testing.T, run func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// program runs the program.
func program(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// checks holds that a text that probe printed is a configuration.
func checks(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pasted.toml")
	minimal := `
[agent]
id = "gw-01"
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = "/tmp/readings.jsonl" }
`
	if err := os.WriteFile(path, []byte(minimal+text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := program(t, "check", path); code != 0 || strings.Contains(out, "warning") {
		t.Errorf("check ends with %d:\n%s%s\nof:\n%s", code, out, errs, text)
	}
}

func TestProbeFindsTheSettingsAndUnitsOfALine(t *testing.T) {
	t.Parallel()
	path := bus(t)
	code, out, errs := program(t, "probe", path, "--units", "3,16-17", "--baud", "9600,19200", "--format", "8E1,8O1", "--timeout", "400ms")
	for _, want := range []string{
		"only reading, nothing is changed",
		"9600 8E1: asking 3 units", "19200 8O1: unit 3 answers", "19200 8O1: unit 17 answers",
	} {
		if !strings.Contains(errs, want) {
			t.Errorf("%q is not told", want)
		}
	}
	for _, want := range []string{
		`serial = { baud = 19200, parity = "odd", stop_bits = 1 }`, "modbus = { unit = 3 }", "modbus = { unit = 17 }",
		"# Address 0 of each table: holding exception 2 (illegal data address); input 42;",
		`{ name = "first", address = "input:0", type = "uint16" },`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not printed", want)
		}
	}
	if code != 0 || t.Failed() {
		t.Fatalf("exit %d:\n%s\n%s", code, errs, out)
	}
	checks(t, out)
}

func TestProbeOfAConfiguredLinkTriesItsSettingFirstAndLeavesOutItsDevices(t *testing.T) {
	t.Parallel()
	path := bus(t)
	file := filepath.Join(t.TempDir(), "agent.toml")
	text := `
[agent]
id = "gw-01"
[[link]]
name = "cellar"
transport = "serial"
address = "` + path + `"
serial = { baud = 19200, parity = "odd", stop_bits = 1 }
[[device]]
id = "boiler-1"
link = "cellar"
driver = "modbus"
modbus = { unit = 17 }
  [[device.poll]]
  name = "p"
  every = "10s"
  points = [{ name = "n", address = "holding:0", type = "int16" }]
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = "/tmp/readings.jsonl" }
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := program(t, "probe", "cellar", "-c", file, "--units", "2-3,17", "--timeout", "500ms")
	if code != 0 || !strings.Contains(out, `# Unit 17 answers; it is the device "boiler-1" that you have.`) || !strings.Contains(out, `name = "cellar"`) {
		t.Errorf("exit %d:\n%s\n%s", code, errs, out)
	}
	if strings.Contains(errs, "9600") {
		t.Errorf("another setting was tried first:\n%s", errs)
	}
	checks(t, out)
}

func TestProbeSaysThatThePortIsHeldAndWhatToDo(t *testing.T) {
	t.Parallel()
	path := bus(t)
	done := make(chan struct{})
	// Another probe holds the line, until its context ends.
	ctx, stop := context.WithCancel(t.Context())
	var out, errs syncBuffer
	go func() {
		defer close(done)
		run(ctx, []string{"probe", path, "--units", "100-247", "--baud", "19200", "--format", "8O1", "--timeout", "10s"}, &out, &errs)
	}()
	defer func() { stop(); <-done }()
	for !strings.Contains(errs.String(), "asking") {
		<-time.After(time.Millisecond)
	}
	code, _, said := program(t, "probe", path, "--units", "1")
	for _, want := range []string{"in use by another program or link", "If it is the running agent: stop it", "take the [[link]] out"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not told in:\n%s", want, said)
		}
	}
	if code != exitRun {
		t.Errorf("exit %d", code)
	}
}

// syncBuffer is a buffer that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestProbeThatIsInterruptedPrintsWhatWasFoundUntilThen(t *testing.T) {
	t.Parallel()
	path := bus(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs syncBuffer
	ended := make(chan int)
	go func() {
		ended <- run(ctx, []string{"probe", path, "--units", "3,4-16", "--baud", "19200", "--format", "8O1", "--timeout", "5s"}, &out, &errs)
	}()
	for !strings.Contains(errs.String(), "unit 3 answers") {
		<-time.After(time.Millisecond)
	}
	stop()
	if code := <-ended; code != exitDone || !strings.Contains(errs.String(), "ended before its end") || !strings.Contains(out.String(), "modbus = { unit = 3 }") {
		t.Errorf("exit %d:\n%s\n%s", code, errs.String(), out.String())
	}
	checks(t, out.String())
}

// server is Modbus on TCP.
func server(t *testing.T, rtu bool, units ...int) string {
	t.Helper()
	s := &modbusslave.Server{RTU: rtu}
	for _, unit := range units {
		slave := modbusslave.New(modbusslave.Config{Unit: unit})
		slave.Set(modbus.Coil, 0, 1)
		s.Slaves = append(s.Slaves, slave)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	play(t, func(ctx context.Context) error { return s.Serve(ctx, ln) })
	return ln.Addr().String()
}

func TestProbeOnTCPFindsUnits(t *testing.T) {
	t.Parallel()
	for name, rtu := range map[string]bool{"Modbus TCP": false, "RTU through TCP": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"probe", server(t, rtu, 1, 5), "--units", "1-6", "--timeout", "500ms"}
			if rtu {
				args = append(args, "--rtu")
			}
			code, out, errs := program(t, args...)
			if code != 0 || strings.Count(out, "[[device]]") != 2 || !strings.Contains(out, "modbus = { unit = 5 }") || !strings.Contains(out, `address = "coil:0" }`) {
				t.Errorf("exit %d:\n%s\n%s", code, errs, out)
			}
			if strings.Contains(out, `framing = "rtu"`) != rtu {
				t.Errorf("framing: %s", out)
			}
			checks(t, out)
		})
	}
}

func TestAServerThatAnswersToEveryUnitIsOneDevice(t *testing.T) {
	t.Parallel()
	var all []int
	for unit := range 256 {
		all = append(all, unit)
	}
	code, out, errs := program(t, "probe", server(t, false, all...), "--timeout", "5s")
	if code != 0 || strings.Count(out, "[[device]]") != 1 || !strings.Contains(out, "answers to every unit") {
		t.Errorf("exit %d:\n%s\n%s", code, tailOf(errs), out)
	}
	checks(t, out)
}

func tailOf(s string) string { return s[max(0, len(s)-500):] }

func TestProbeOfASilentLineSaysWhatToCheckAndExits2(t *testing.T) {
	t.Parallel()
	path := bus(t)
	code, out, errs := program(t, "probe", path, "--units", "1", "--baud", "1200", "--format", "8E1,8N1", "--timeout", "20ms")
	if code != exitRun || out != "" || !strings.Contains(errs, "nobody answered on serial "+path) || !strings.Contains(errs, "A and B may be swapped") {
		t.Errorf("exit %d:\n%s\n%s", code, errs, out)
	}
}

func TestOnATerminalTheProgressIsOneLineThatIsRepainted(t *testing.T) {
	var out strings.Builder
	s := &probeScreen{out: &out, terminal: true}
	at := probe.Setting{Baud: 9600, Format: probe.Formats()[0]}
	s.Asking(probe.Progress{Setting: at, Unit: 4, Of: 11, Left: 61*time.Second + time.Millisecond})
	s.Found(at, probe.Unit{Number: 4})
	s.Asking(probe.Progress{Setting: at, Unit: 5, Place: 1, Of: 11, Left: time.Minute})
	s.end()
	s.end()
	const clear = "\r\x1b[2K"
	want := clear + "9600 8E1  unit 4 (1 of 11)  0 found  at most 1m1s left" + clear + "9600 8E1: unit 4 answers\n" +
		clear + "9600 8E1  unit 5 (2 of 11)  1 found  at most 1m0s left" + clear
	if out.String() != want {
		t.Errorf("got %q\nwant %q", out.String(), want)
	}
}

// probeLinks are links of every kind that probe is asked about.
const probeLinks = `[agent]
id = "gw-01"
[[link]]
name = "rs485"
transport = "serial"
address = "/dev/not-there"
[[link]]
name = "scale"
transport = "tcp"
address = "127.0.0.1:4001"
[[link]]
name = "far"
transport = "tcp"
address = "127.0.0.1:802"
tls = { ca = "/etc/edge-agent/ca.crt" }
[[link]]
name = "caller"
transport = "tcp"
address = "127.0.0.1:5502"
accept = {}
[[device]]
id = "boiler-1"
link = "rs485"
driver = "modbus"
  [[device.poll]]
  name = "p"
  every = "10s"
  points = [{ name = "n", address = "holding:0", type = "int16" }]
[[device]]
id = "plc-1"
link = "far"
driver = "modbus"
  [[device.poll]]
  name = "p"
  every = "10s"
  points = [{ name = "n", address = "holding:0", type = "int16" }]
[[device]]
id = "plc-2"
link = "caller"
driver = "modbus"
  [[device.poll]]
  name = "p"
  every = "10s"
  points = [{ name = "n", address = "holding:0", type = "int16" }]
[[device]]
id = "scale-1"
link = "scale"
driver = "text"
text = { rules = [{ name = "weight", match = '^(?P<w>\d+)$' }] }
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = "/tmp/readings.jsonl" }
`

func TestProbeSaysWhatIsWrongWithItsArguments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, bad := filepath.Join(dir, "agent.toml"), filepath.Join(dir, "bad.toml")
	for path, text := range map[string]string{
		file: probeLinks,
		bad:  "[agent]\nid = \"gw-01\"\n[[link]]\nname = \"rs485\"\ntransport = \"serial\"\naddress = \"/dev/not-there\"\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"nowhere", exitInput, `"nowhere" is no device file and no HOST:PORT; if it is the name of a`},
		{"nowhere -c " + file, exitInput, "agent.toml has no [[link]] of that name"},
		{"/dev/not-there --units 0-5", exitInput, `--units: "0-5" are no units: write such as 1-10,17 with numbers from 1 to 247`},
		{"127.0.0.1:502 --units 256", exitInput, "with numbers from 0 to 255"},
		{"/dev/not-there --format 7E1", exitInput, `--format: "7E1": Modbus RTU has 8 data bits: write 8E1`},
		{"/dev/not-there --baud 7", exitInput, "--baud=7: 50 to 4000000 can be set"},
		{"/dev/not-there --rtu", exitInput, "--rtu is for HOST:PORT"},
		{"/dev/not-there --timeout=-1s", exitInput, "is no time to wait"},
		{"127.0.0.1:502 --baud 9600", exitInput, "are for serial lines"},
		{"scale -c " + file, exitInput, `the devices of link "scale" speak text; probe looks for Modbus`},
		{"far -c " + file, exitInput, `link "far" is encrypted`},
		{"caller -c " + file, exitInput, `on link "caller" the device calls us`},
		{"rs485 -c " + bad, exitInput, "a line that is not configured yet is probed by its device file or HOST:PORT, without -c"},
		{"rs485 -c " + file, exitRun, "serial /dev/not-there: open: no such device"},
		{"/dev/null", exitRun, "not a serial port: correct the path"},
	} {
		code, out, errs := program(t, append([]string{"probe"}, strings.Fields(c.args)...)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("probe %s: exit %d, want %d with %q:\n%s%s", c.args, code, c.code, c.says, errs, out)
		}
	}
}
