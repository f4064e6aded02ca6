package e2e

import (
	"bytes"
	endian "encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
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
			wanted := []string{"HELLO press-7", "WELCOME gw-01", "PUBLISH main 1–", "ACK main ≤ 300", "CLOSE going away"}
			if transport == "udp" {
				wanted = append(wanted, "challenge")
			}
			for _, want := range wanted {
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
	if err == nil || !strings.Contains(string(text), "ERROR not allowed") {
		t.Errorf("press-7's certificate let press-8 in: %v %s", err, text)
	}
}

func TestAClientInPythonOutlivesAKillOfTheAgent(t *testing.T) {
	t.Parallel()
	const produced = 5000
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			a, address, out := plant(t, transport, "")
			client := launch(t, "python3", pythonClient, "publish", transport+"://"+address, "press-7", "--count", strconv.Itoa(produced), "n=1")
			eventually(t, 20*time.Second, "some records", func() bool { return a.lastSeq("press-7") > 0 })
			a.kill()
			if client.ended() {
				t.Fatal("the client was done before the agent was killed")
			}
			away := time.NewTimer(2 * time.Second)
			<-away.C
			run(t, a.config, strings.TrimPrefix(a.admin, "http://"))
			select {
			case <-client.done:
			case <-time.After(20 * time.Second):
				t.Fatal("the client has not come back 20 s after the agent")
			}
			if code := client.cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(client.output(), "5000 records are safe") {
				t.Errorf("the client ended with %d:\n%s", code, client.output())
			}
			last, repeats := inOrder(t, delivered(t, out, "press-7", produced))
			if last["press-7"] != produced {
				t.Errorf("%d records were made, and %d stored", produced, last["press-7"])
			}
			t.Logf("%d lines repeated", repeats)
		})
	}
}

func TestAClientInPythonSaysWhyItGivesUp(t *testing.T) {
	_, address, _ := plant(t, "udp", "")
	for _, c := range []struct{ name, url, reading, want string }{
		{"an address that is none", "foo", "n=1", "write tcp://HOST:PORT"},
		{"nobody there", fmt.Sprintf("tcp://127.0.0.1:%d", freePort(t)), "n=1", "0 of 1 records are safe"},
		{"a record that fits no datagram", "udp://" + address, "text=" + strings.Repeat("x", 1300), "this agent takes 1212 over UDP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := exec.Command("python3", pythonClient, "publish", c.url, "press-7", c.reading, "--patience", "0.5").CombinedOutput()
			if err == nil || !strings.Contains(string(text), c.want) || strings.Contains(string(text), "Traceback") {
				t.Errorf("%v, and it says:\n%s", err, text)
			}
		})
	}
}

// TestTheDissectorTakesWhateverComes gives Wireshark the document's vectors with
// bytes changed, cut out and put in, behind checksums that are right.
func TestTheDissectorTakesWhateverComes(t *testing.T) {
	document, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	vectors := regexp.MustCompile(`(?m)^v2 \S+ +([0-9a-f]+)$`).FindAllSubmatch(document, -1)
	random := rand.New(rand.NewPCG(1, 2))
	// The header of a pcap file, and of each packet: raw IP, that is link type 101.
	file := endian.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	file = append(file, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0)
	for i := range 1000 {
		vector := make([]byte, 2048)
		n, err := hex.Decode(vector, vectors[i%len(vectors)][1])
		if err != nil {
			t.Fatal(err)
		}
		f, err := mcp.ParseFrame(vector[:n])
		if err != nil {
			t.Fatal(err)
		}
		packet := udpPacket(datagram(1, frame(f.Command, mutate(random, f.Payload))))
		captured := len(packet)
		if i%10 == 0 {
			captured = 28 + random.IntN(captured-28)
		}
		for _, field := range []int{i, 0, captured, len(packet)} {
			file = endian.LittleEndian.AppendUint32(file, uint32(field))
		}
		file = append(file, packet[:captured]...)
	}
	path := filepath.Join(t.TempDir(), "mutated.pcap")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := dissect(t, path, "edge_mcp.command", "_ws.expert.message")
	if n := strings.Count(seen.commands, "\n"); n < 900 {
		t.Errorf("%d of 900 datagrams that are whole were taken apart", n)
	}
	if strings.Contains(seen.fields, "Lua") {
		t.Errorf("the dissector fails: %s", tail(seen.fields, 1000))
	}
}

// udpPacket puts a datagram behind headers of IPv4 and UDP. Wireshark does not
// look at their checksums.
func udpPacket(datagram []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 2, 0x1e, 0x15, 0x9c, 0x40}
	endian.BigEndian.PutUint16(b[2:], uint16(28+len(datagram)))
	b = endian.BigEndian.AppendUint16(b, uint16(8+len(datagram)))
	return append(append(b, 0, 0), datagram...)
}

// mutate changes up to four places.
func mutate(random *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	for range random.IntN(5) {
		if len(b) == 0 {
			break
		}
		at := random.IntN(len(b))
		switch random.IntN(3) {
		case 0:
			b[at] = byte(random.Uint32())
		case 1:
			b = slices.Delete(b, at, min(at+1+random.IntN(8), len(b)))
		default:
			b = slices.Insert(b, at, slices.Repeat([]byte{0xff}, 1+random.IntN(10))...)
		}
	}
	return b
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
	d.wrong = tshark("-Y", "edge_mcp.checksum.wrong || edge_mcp.malformed || edge_mcp.refused || _ws.malformed || _ws.lua.error")
	return d
}
