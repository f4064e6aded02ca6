package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ptyPair is a serial line of socat's: what is written to one end comes out of
// the other.
func ptyPair(t *testing.T) (ours, theirs string) {
	t.Helper()
	dir := t.TempDir()
	ours, theirs = filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	launch(t, "socat", "pty,raw,echo=0,link="+ours, "pty,raw,echo=0,link="+theirs)
	eventually(t, 20*time.Second, "the pty pair", func() bool {
		_, err := os.Stat(theirs)
		return err == nil
	})
	return ours, theirs
}

// slaveOf starts a script of testdata on a line of its own, or on TCP, and
// returns where it is reached.
func slaveOf(t *testing.T, script, transport string, units ...int) (address string) {
	t.Helper()
	var where string
	if transport == "serial" {
		address, where = ptyPair(t)
	} else {
		where = fmt.Sprint(freePort(t))
		address = "127.0.0.1:" + where
	}
	args := []string{"testdata/" + script, map[string]string{"serial": "rtu", "tcp": "tcp"}[transport], where}
	for _, unit := range units {
		args = append(args, fmt.Sprint(unit))
	}
	launch(t, "/usr/bin/python3", args...).says("ready")
	return address
}

// realSlave is a slave that nobody here wrote: its library and how it is reached.
type realSlave struct{ device, script, transport, address string }

// start starts it, as unit 3.
func (s realSlave) start(t *testing.T) realSlave {
	t.Helper()
	s.address = slaveOf(t, s.script, s.transport, 3)
	return s
}

// linkText is a [[link]] to a slave.
func (s realSlave) linkText() string {
	text := fmt.Sprintf("[[link]]\nname = %q\ntransport = %q\naddress = %q\n", s.device, s.transport, s.address)
	if s.transport == "serial" {
		text += "serial = { baud = 115200 }\n"
	}
	return text
}

// deviceText is a [[device]] that reads a unit of a slave.
func deviceText(id, link string, unit int, every, points string) string {
	return fmt.Sprintf(`
[[device]]
id = %q
link = %q
driver = "modbus"
modbus = { unit = %d }
  [[device.poll]]
  name = "p"
  every = %q
  points = [ %s ]
`, id, link, unit, every, points)
}

const (
	// readPoints can be read in one request.
	readPoints = `
    { name = "n", address = "holding:0", type = "uint32" },
    { name = "temp", address = "holding:2", type = "float32" },
    { name = "level", address = "holding:4", type = "int16" },
`
	// allPoints are of every table; some may be written.
	allPoints = readPoints + `
    { name = "setpoint", address = "holding:10", type = "float32", order = "CDAB", access = "rw", limits = [-40, 150] },
    { name = "speed", address = "holding:12", type = "int16", access = "rw" },
    { name = "pressure", address = "input:0", type = "uint16", scale = 0.01 },
    { name = "door", address = "discrete:1" },
    { name = "pump", address = "coil:4", access = "rw" },
`
)

const agentText = `
[agent]
id = "gw-01"
data_dir = "DATA"
[admin]
listen = "ADMIN"
[store]
commit_delay = "50ms"
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = "DATA/readings.jsonl" }
`

// inFile is what the file upstream has of a device.
func inFile(t *testing.T, a *agent, device string) (list []modbusReading) {
	t.Helper()
	text, _ := os.ReadFile(filepath.Join(filepath.Dir(a.config), "data", "readings.jsonl")) // not there at first
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var r modbusReading
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if r.Device == device && r.Stream == "p" {
			list = append(list, r)
		}
	}
	return list
}

// modbusReading is a record of the file upstream whose values are of any type.
type modbusReading struct {
	Device  string            `json:"device"`
	Stream  string            `json:"stream"`
	Time    time.Time         `json:"time"`
	Quality string            `json:"quality"`
	Values  map[string]any    `json:"values"`
	Bad     map[string]string `json:"bad"`
}

// command posts one, waits until it has ended, and returns the HTTP status too.
func command(t *testing.T, a *agent, device, body string) (status int, c commandState) {
	t.Helper()
	if status, c = order(a, device, body, "?wait=20s"); status == 0 {
		t.Fatalf("the agent does not answer to %s", body)
	}
	return status, c
}

// TestRealSlavesAreReadAndWritten has libmodbus and pymodbus as slaves, RTU and
// TCP each, behind one agent.
func TestRealSlavesAreReadAndWritten(t *testing.T) {
	t.Parallel()
	text := agentText
	var slaves []realSlave
	for _, s := range []realSlave{
		{device: "libmodbus-rtu", script: "libmodbus_slave.py", transport: "serial"},
		{device: "libmodbus-tcp", script: "libmodbus_slave.py", transport: "tcp"},
		{device: "pymodbus-rtu", script: "slave.py", transport: "serial"},
		{device: "pymodbus-tcp", script: "slave.py", transport: "tcp"},
	} {
		s = s.start(t)
		slaves = append(slaves, s)
		text += s.linkText() + deviceText(s.device, s.device, 3, "100ms", allPoints)
	}
	config, admin := configure(t, text)
	a := run(t, config, admin)

	for _, s := range slaves {
		t.Run(s.device, func(t *testing.T) {
			t.Parallel()
			eventually(t, 30*time.Second, "ten readings of "+s.device, func() bool { return len(inFile(t, a, s.device)) >= 10 })
			last := 0.0
			for _, r := range inFile(t, a, s.device) {
				n, _ := r.Values["n"].(float64)
				if r.Quality != "good" || n <= last || r.Values["temp"] != 21.5 || r.Values["level"] != -7.0 ||
					r.Values["pressure"] != 10.0 || r.Values["door"] != true || r.Values["pump"] != false {
					t.Errorf("after answer %v: %+v", last, r)
				}
				last = n
			}
			writes(t, a, s.device)
		})
	}
}

// writes commands a device: what was written is read back, comes with the polls,
// and what can't be written is refused.
func writes(t *testing.T, a *agent, device string) {
	t.Helper()
	for _, w := range []struct {
		point string
		value any
	}{{"setpoint", 71.25}, {"speed", -1200.0}, {"pump", true}} {
		body := fmt.Sprintf(`{"kind": "write", "point": %q, "value": %v, "read_back": true}`, w.point, w.value)
		if status, c := command(t, a, device, body); status != http.StatusOK || c.State != "succeeded" {
			t.Errorf("writing %s: %d, %+v", w.point, status, c)
		}
		eventually(t, 20*time.Second, w.point+" in the readings", func() bool {
			list := inFile(t, a, device)
			return list[len(list)-1].Values[w.point] == w.value
		})
	}
	if code, out, errs := runs(t, "write", "-c", a.config, device, "speed", "42", "--read-back"); code != 0 {
		t.Errorf("edge-agent write: exit %d, %s%s", code, out, errs)
	}
	if code, out, errs := runs(t, "read", "-c", a.config, device, "speed"); code != 0 || !strings.Contains(out, "42") {
		t.Errorf("edge-agent read: exit %d, %s%s", code, out, errs)
	}
	for _, body := range []string{
		`{"kind": "write", "point": "temp", "value": 1}`,       // read-only
		`{"kind": "write", "point": "setpoint", "value": 151}`, // out of its range
		`{"kind": "write", "point": "speed", "value": "fast"}`, // of the wrong type
		`{"kind": "write", "point": "nothing", "value": 1}`,    // unknown
	} {
		if status, c := command(t, a, device, body); status != http.StatusUnprocessableEntity || c.Reason+c.Error == "" {
			t.Errorf("%s: %d, %+v", body, status, c)
		}
	}
}

// TestADeadUnitOfARealLineCostsTheLiveOnesNothing has three slaves of pymodbus
// on a line, and polls a fourth that is not there.
func TestADeadUnitOfARealLineCostsTheLiveOnesNothing(t *testing.T) {
	t.Parallel()
	const (
		every  = 250 * time.Millisecond
		window = 6 * time.Second
	)
	line := realSlave{device: "rs485", transport: "serial", address: slaveOf(t, "slave.py", "serial", 1, 2, 3)}
	text := agentText + line.linkText() + "timeout = \"500ms\"\n"
	live := []string{"unit-1", "unit-2", "unit-3"}
	for unit := 1; unit <= 4; unit++ {
		text += deviceText(fmt.Sprintf("unit-%d", unit), "rs485", unit, every.String(), readPoints)
	}
	config, admin := configure(t, text)
	a := run(t, config, admin)

	// A tenth may be missing, and a machine that others keep busy has a few tries.
	const want = int(window / every)
	eventually(t, 30*time.Second, "six seconds in which every live unit keeps its period", func() bool {
		for _, device := range live {
			good := lately(inFile(t, a, device), window)
			if good > want+1 {
				t.Fatalf("%s: %d readings in %v, %d were due", device, good, window, want)
			}
			if good < want*9/10 {
				return false
			}
		}
		return true
	})
	eventually(t, 20*time.Second, "a reading of the dead unit", func() bool { return len(inFile(t, a, "unit-4")) > 0 })
	for _, r := range inFile(t, a, "unit-4") {
		if r.Quality != "bad" || len(r.Values) != 0 || len(r.Bad) == 0 {
			t.Errorf("the dead unit: %+v", r)
		}
		for point, reason := range r.Bad {
			if reason != "timeout" {
				t.Errorf("the dead unit's %s is bad for %q", point, reason)
			}
		}
	}
}

// lately is how many of a device's readings are good and within window of its last.
func lately(list []modbusReading, window time.Duration) (good int) {
	for _, r := range list {
		if r.Quality == "good" && r.Time.After(list[len(list)-1].Time.Add(-window)) {
			good++
		}
	}
	return good
}

// TestProbeFindsRealSlaves: what it prints is a configuration, and it says so
// when the agent has the line.
func TestProbeFindsRealSlaves(t *testing.T) {
	t.Parallel()
	for _, s := range []realSlave{
		{device: "libmodbus", script: "libmodbus_slave.py", transport: "serial"},
		{device: "pymodbus", script: "slave.py", transport: "tcp"},
	} {
		t.Run(s.device, func(t *testing.T) {
			t.Parallel()
			s := s.start(t)
			args := []string{"probe", s.address, "--units", "2-4", "--timeout", "1s"}
			if s.transport == "serial" {
				args = append(args, "--baud", "115200", "--format", "8N1")
			}
			code, out, errs := runs(t, args...)
			if code != 0 || strings.Count(out, "[[device]]") != 1 || !strings.Contains(out, "modbus = { unit = 3 }") ||
				!strings.Contains(out, "# Address 0 of each table: holding 0; input 1000; coil 0; discrete 0.") {
				t.Fatalf("exit %d:\n%s\n%s", code, errs, out)
			}
			config, admin := configure(t, agentText+out)
			if code, said, errs := runs(t, "check", config); code != 0 {
				t.Errorf("check of what was printed: %s%s", said, errs)
			}
			a := run(t, config, admin)
			if s.transport == "serial" {
				code, _, errs := runs(t, "probe", "rs485-1", "-c", config)
				if code != 2 || !strings.Contains(errs, "If it is the running agent: stop it") {
					t.Errorf("while the agent has the line: exit %d\n%s", code, errs)
				}
			}
			eventually(t, 20*time.Second, "a reading", func() bool { return a.lastSeq("unit-3") > 0 })
		})
	}
}

// runs runs the agent's binary to its end.
func runs(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return output(t, binary, args...)
}

func output(t *testing.T, name string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("%s: %v (./scripts/test installs the peers)", name, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
