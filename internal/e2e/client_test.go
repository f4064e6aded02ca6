package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pythonClient is a client that was written from docs/protocol.md alone.
const pythonClient = "../../scripts/client/mcp_client.py"

func TestAClientInPythonAgreesWithTheDocumentsVectors(t *testing.T) {
	out, err := exec.Command("python3", pythonClient, "vectors", "../../docs/protocol.md").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// plant is an agent with one listener that any device may reach from this
// machine, and a file that everything goes to.
func plant(t *testing.T, transport, settings string) (a *agent, address, out string) {
	t.Helper()
	return plantOf(t, binary, transport, settings)
}

func plantOf(t *testing.T, binary, transport, settings string) (a *agent, address, out string) {
	t.Helper()
	address = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	out = filepath.Join(t.TempDir(), "out.jsonl")
	config, admin := configure(t, fmt.Sprintf(`
[agent]
id = "gw-01"
data_dir = "DATA"
[admin]
listen = "ADMIN"
[[listen]]
name = "plant"
transport = %q
address = %q
%s
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = %q }
`, transport, address, settings, out))
	return runBinary(t, binary, config, admin), address, out
}

// delivered waits until n records of the device are in the file, and returns all.
func delivered(t *testing.T, out, device string, n uint64) []reading {
	t.Helper()
	var list []reading
	eventually(t, 30*time.Second, fmt.Sprintf("%d records of %s", n, device), func() bool {
		text, err := os.ReadFile(out)
		if err != nil {
			return false
		}
		list = readings(t, string(text))
		last, _ := inOrder(t, list)
		return last[device] >= n
	})
	return list
}

func TestAClientInPythonPublishesAndWiresharkCanTellWhat(t *testing.T) {
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			_, address, out := plant(t, transport, "")
			_, port, _ := strings.Cut(address, ":")
			captured := capture(t, transport+" port "+port)
			publishFromPython(t, transport+"://"+address, "300")
			list := delivered(t, out, "press-7", 300)
			if r := list[0]; r.Stream != "stroke" || r.Values["n"] != "-42" || r.Values["force"] != "80.25" {
				t.Errorf("the first record is %+v", r)
			}
			seen := dissect(t, captured(), "edge_mcp.device", "edge_mcp.point.int", "edge_mcp.checksum.good")
			for _, want := range []string{"HELLO", "WELCOME", "PUBLISH", "ACK", "CLOSE"} {
				if !strings.Contains(seen.commands, want) {
					t.Errorf("no %s in:\n%s", want, seen.commands)
				}
			}
			if n := strings.Count(seen.fields, "-42"); n < 300 {
				t.Errorf("%d of 300 points were read", n)
			}
			if strings.Contains(seen.fields, "False") || strings.Contains(seen.fields, "\t0") || seen.wrong != "" {
				t.Errorf("frames that are wrong: %s\n%s", seen.wrong, tail(seen.fields, 1000))
			}
		})
	}
}

func TestAClientInPythonPublishesOverTLSWithItsCertificate(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command(binary, "cert", dir, "--host", "127.0.0.1", "--client", "press-7").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	_, address, out := plant(t, "tcp", fmt.Sprintf("tls = { cert = %q, key = %q, client_ca = %q }",
		file("server.crt"), file("server.key"), file("ca.crt")))
	publishFromPython(t, "tls://"+address, "10", "--ca", file("ca.crt"), "--cert", file("press-7.crt"), "--key", file("press-7.key"))
	delivered(t, out, "press-7", 10)
	text, err := exec.Command("python3", pythonClient, "publish", "tls://"+address, "press-8", "n=1",
		"--ca", file("ca.crt"), "--cert", file("press-7.crt"), "--key", file("press-7.key")).CombinedOutput()
	if err == nil || !strings.Contains(string(text), "code 5") {
		t.Errorf("press-7's certificate let press-8 in: %v %s", err, text)
	}
}

func publishFromPython(t *testing.T, url, count string, options ...string) {
	t.Helper()
	args := append([]string{pythonClient, "publish", url, "press-7", "--stream", "stroke", "--count", count, "n=-42", "force=80.25"}, options...)
	if out, err := exec.Command("python3", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// capture records what passes on the loopback interface; the function it returns
// waits until both sides have said CLOSE, ends it, and names the file.
func capture(t *testing.T, filter string) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "capture.pcapng")
	p := launch(t, "dumpcap", "-q", "-i", "lo", "-f", filter, "-w", path)
	p.says("File: ")
	return func() string {
		t.Helper()
		eventually(t, 20*time.Second, "the capture to have both CLOSEs", func() bool {
			packets, err := os.ReadFile(path)
			return err == nil && bytes.Count(packets, []byte("MC\x02\x09")) >= 2
		})
		if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		<-p.done
		return path
	}
}

// dissection is what tshark makes of a capture with our dissector.
type dissection struct {
	commands string // the summary of each packet
	fields   string // the fields asked for, a line a packet
	wrong    string // what it complains about
}

func dissect(t *testing.T, path string, fields ...string) dissection {
	t.Helper()
	tshark := func(args ...string) string {
		args = append([]string{"-X", "lua_script:../../scripts/wireshark/edge_mcp.lua", "-r", path}, args...)
		cmd := exec.Command("tshark", args...)
		var complaints strings.Builder
		cmd.Stderr = &complaints
		out, err := cmd.Output()
		if err != nil || strings.Contains(complaints.String(), "Lua") {
			t.Fatalf("tshark: %v %s", err, complaints.String())
		}
		return string(out)
	}
	var d dissection
	d.commands = tshark("-Y", "edge_mcp", "-T", "fields", "-e", "_ws.col.Info")
	ask := []string{"-Y", "edge_mcp", "-T", "fields"}
	for _, f := range fields {
		ask = append(ask, "-e", f)
	}
	d.fields = tshark(ask...)
	d.wrong = tshark("-Y", "edge_mcp.checksum.wrong || edge_mcp.malformed || _ws.malformed || _ws.lua.error")
	return d
}
