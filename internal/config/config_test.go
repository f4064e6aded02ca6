package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smallest is a configuration without a problem.
const smallest = `
[agent]
id = "gw-01"

[[link]]
name = "plc"
transport = "tcp"
address = "10.0.0.5:502"

[[device]]
id = "plc-1"
link = "plc"
driver = "modbus"
  [[device.poll]]
  name = "flow"
  every = "1s"
  points = [{ name = "flow", address = "input:0", type = "uint16" }]

[[route]]
name = "all"
to = ["local"]

[[upstream]]
name = "local"
kind = "file"
file = { path = "/var/lib/edge-agent/out.jsonl" }
`

// environment is one in which these variables are set.
type environment map[string]string

func (e environment) lookup(name string) (string, bool) {
	value, ok := e[name]
	return value, ok
}

// good parses text, which must have no problem.
func good(t *testing.T, text string, lookup func(string) (string, bool)) *File {
	t.Helper()
	file, problems := Parse("good.toml", text, lookup)
	if len(problems) > 0 {
		t.Fatalf("problems\n%v", problems)
	}
	return file
}

func TestEachExampleIsWithoutAProblem(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, path := range files {
		file, problems, err := Load(path, noEnvironment)
		if err != nil || len(problems) > 0 {
			t.Errorf("%v\n%v", err, problems)
			continue
		}
		t.Log(path, file.Summary())
	}
}

func TestTheExampleInTheReadmeIsWithoutAProblem(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "```toml\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatal("the README shows no configuration")
	}
	good(t, block, noEnvironment)
}

func TestWhatIsNotWrittenHasItsDefault(t *testing.T) {
	f := good(t, smallest, noEnvironment)
	link, poll := f.Links[0], f.Devices[0].Polls[0]
	switch {
	case f.Agent.DataDir != "/var/lib/edge-agent", f.Admin.Listen != "127.0.0.1:9600", f.Log.Level != "info":
		t.Errorf("agent %+v, admin %+v, log %+v", f.Agent, f.Admin, f.Log)
	case f.Store.WhenFull != "block", f.Store.CommitDelay != time.Second, f.Store.MaxSize < 256<<20:
		t.Errorf("store %+v", f.Store)
	case link.Timeout != time.Second, link.RetryCount != 3, link.Driver != "modbus", link.Modbus.Framing != "tcp",
		link.Modbus.LateReplyGuard != time.Second, link.Serial.Baud != 9600:
		t.Errorf("link %+v", link)
	case poll.Every != time.Second, poll.Points[0].Order != "ABCD", poll.Points[0].Scale != 1:
		t.Errorf("poll %+v", poll)
	}
}

func TestALinkWithMCPDevicesHasTheLongerTimeout(t *testing.T) {
	text := strings.Replace(smallest, `driver = "modbus"`, `driver = "mcp"`, 1)
	text = strings.Replace(text, `points = [{ name = "flow", address = "input:0", type = "uint16" }]`, `method = "read"`, 1)
	if f := good(t, text, noEnvironment); f.Links[0].Timeout != 5*time.Second {
		t.Errorf("link %+v", f.Links[0])
	}
}

func TestASerialModbusLinkSpeaksRTU(t *testing.T) {
	text := strings.Replace(smallest, `"tcp"`, `"serial"`, 1)
	text = strings.Replace(text, "10.0.0.5:502", "/dev/ttyUSB0", 1)
	if f := good(t, text, noEnvironment); f.Links[0].Modbus.Framing != "rtu" {
		t.Errorf("link %+v", f.Links[0])
	}
}

func TestAByteOrderMarkAndWindowsLineEndsAreTaken(t *testing.T) {
	good(t, "\ufeff"+strings.ReplaceAll(smallest, "\n", "\r\n"), noEnvironment)
}

func TestTheSummaryCountsWhatIsConfigured(t *testing.T) {
	if got, want := good(t, smallest, noEnvironment).Summary(), "1 link, 1 device, 1 poll, 1 route, 1 upstream"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := good(t, "agent.id = 'gw'", noEnvironment).Summary(); got != "nothing to do" {
		t.Errorf("got %q", got)
	}
}

func TestTheEnvironmentGoesBeforeTheFile(t *testing.T) {
	f := good(t, smallest, environment{
		"EDGE_AGENT_AGENT_ID": "gw-02", "EDGE_AGENT_DATA_DIR": "/data", "EDGE_AGENT_ADMIN_LISTEN": "[::1]:9601",
		"EDGE_AGENT_LOG_LEVEL": "debug", "EDGE_AGENT_LOG_FORMAT": "json",
	}.lookup)
	if f.Agent.ID != "gw-02" || f.Agent.DataDir != "/data" || f.Admin.Listen != "[::1]:9601" || f.Log != (Log{"debug", "json"}) {
		t.Errorf("agent %+v, admin %+v, log %+v", f.Agent, f.Admin, f.Log)
	}
	f = good(t, strings.Replace(smallest, "[agent]\nid = \"gw-01\"\n", "", 1), environment{"EDGE_AGENT_AGENT_ID": "gw-03", "EDGE_AGENT_LOG_LEVEL": ""}.lookup)
	if f.Agent.ID != "gw-03" || f.Log.Level != "info" {
		t.Errorf("agent %+v, log %+v", f.Agent, f.Log)
	}
}

func TestAMistakeInTheEnvironmentIsReportedThere(t *testing.T) {
	_, problems := Parse("x.toml", smallest+"\n[lgo]\n", environment{
		"EDGE_AGENT_AGENT_ID": "a/b", "EDGE_AGENT_ADMIN_LISTEN": "0.0.0.0:9600", "EDGE_AGENT_LOG_LEVEL": "loud",
	}.lookup)
	const want = `EDGE_AGENT_AGENT_ID: id = "a/b" contains '/', which has a meaning in MQTT topics; write "a-b"
EDGE_AGENT_LOG_LEVEL: level = "loud" is not known; write "debug", "info", "warn" or "error"
EDGE_AGENT_ADMIN_LISTEN: listen = "0.0.0.0:9600" is open to other machines; write insecure = true beside it where you trust the network, or write "127.0.0.1:9600"
x.toml:28:1: unknown table [lgo]; did you mean "log"?
`
	if problems.String() != want {
		t.Errorf("got\n%v", problems)
	}
	// A file that is wrong in the same place keeps its own problem.
	if _, problems := Parse("x.toml", "agent = 1", environment{"EDGE_AGENT_AGENT_ID": "gw"}.lookup); problems.String() !=
		"x.toml:1:1: agent = 1 is a whole number; write agent = { … }\n" {
		t.Errorf("got\n%v", problems)
	}
}

func TestAFileThatCanNotBeReadIsAnErrorOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Load(filepath.Join(dir, "none.toml"), noEnvironment); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
	large := filepath.Join(dir, "large.toml")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(large, noEnvironment); err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("got %v", err)
	}
}

const withSecrets = `
[agent]
id = "gw-01"
[[route]]
name = "all"
to = ["a", "b"]
[[upstream]]
name = "a"
kind = "mqtt"
endpoints = [{ address = "mqtt://broker" }]
mqtt = { username = "gw", password = "file:PATH" }
[[upstream]]
name = "b"
kind = "mqtt"
endpoints = [{ address = "mqtt://broker" }]
mqtt = { username = "gw", password = "env:PASSWORD" }
`

func TestSecretsAreReadWhenTheAgentStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	f := good(t, strings.ReplaceAll(withSecrets, "PATH", path), noEnvironment) // needs neither to be there
	if problems := f.ResolveSecrets(noEnvironment); problems.String() !=
		"good.toml:11:27: password: stat "+path+": no such file or directory\n"+
			"good.toml:16:27: password: the environment variable PASSWORD is not set\n" {
		t.Errorf("got\n%v", problems)
	}
	if err := os.WriteFile(path, []byte("hunter2 \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f = good(t, strings.ReplaceAll(withSecrets, "PATH", path), noEnvironment)
	if problems := f.ResolveSecrets(environment{"PASSWORD": "file:hunter3"}.lookup); len(problems) > 0 {
		t.Errorf("got\n%v", problems)
	}
	if a, b := f.Upstreams[0].MQTT.Password, f.Upstreams[1].MQTT.Password; a != "hunter2 " || b != "file:hunter3" {
		t.Errorf("got %q and %q", a, b)
	}
	// A secret that looks like a reference is none: each is resolved once.
	f.ResolveSecrets(noEnvironment)
	if b := f.Upstreams[1].MQTT.Password; b != "file:hunter3" {
		t.Errorf("got %q", b)
	}
}

func TestASecretsFileMustHoldOne(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string][]byte{"empty": []byte("\n"), "large": make([]byte, maxSecret+1)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if text, err := readSecret("file:"+path, noEnvironment); err == nil {
			t.Errorf("%s: got %q", name, text)
		}
	}
}

func TestSizesHaveBinaryUnits(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "4096": 4096, "12B": 12, "1KiB": 1024, "1.5 MiB": 3 << 19, "2GiB": 2 << 30, "1TiB": 1 << 40} {
		if got, err := parseSize(s); got != want || err != nil {
			t.Errorf("%q is %d, %v", s, got, err)
		}
	}
	for s, want := range map[string]string{
		"": "is no size", "GiB": "is no size", "-1KiB": "is no size", "1XiB": "is no size", "nan": "is no size", "1 2KiB": "is no size",
		"1GB": `write "1GiB"`, "1g": `write "1GiB"`, "5kb": `write "5KiB"`, "1e30TiB": "more than any disk",
	} {
		if got, err := parseSize(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %d, %v", s, got, err)
		}
	}
	for n, want := range map[int64]string{1: "1", 1023: "1023", 1024: "1KiB", 1536: "1536", 1 << 20: "1MiB", 3 << 40: "3TiB", 1 << 60: "1048576TiB"} {
		if got := formatSize(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}

func TestTheNearestNameIsProposedOnlyWhenItIsNear(t *testing.T) {
	known := []string{"timeout", "address", "transport", "id"}
	for word, want := range map[string]string{
		"tiemout": "timeout", "time_out": "timeout", "addrress": "address", "Transport": "transport", "di": "id", "colour": "", "": "", "x": "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}

func TestATableThatMayBeAbsentIsThereOnlyWhenGiven(t *testing.T) {
	line := func(serial string) Link {
		text := strings.Replace(smallest, `"tcp"`, `"serial"`, 1)
		text = strings.Replace(text, `address = "10.0.0.5:502"`, `usb = { vid = "0403", pid = "6001" }`+"\n"+serial, 1)
		return good(t, text, noEnvironment).Links[0]
	}
	if l := line(""); l.Serial.RS485 != nil || l.USB == nil || l.USB.PID != "6001" {
		t.Errorf("not given: %+v", l)
	}
	if l := line("serial = { rs485 = {} }"); l.Serial.RS485 == nil || !l.Serial.RS485.RTSOnSend {
		t.Errorf("given, and empty: %+v", l.Serial)
	}
	if l := line("[link.serial.rs485]\ndelay_after = \"2ms\""); l.Serial.RS485 == nil || l.Serial.RS485.DelayAfter != 2*time.Millisecond {
		t.Errorf("with a key: %+v", l.Serial)
	}
}
