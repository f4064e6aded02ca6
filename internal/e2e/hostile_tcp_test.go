package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// impatient are a listener's settings that let a test see its time-outs.
const impatient = `hello_timeout = "1s"
frame_timeout = "1s"
heartbeat_interval = "1s"
`

func refusedFor(reason string) string {
	return fmt.Sprintf("edge_agent_listener_refused_total{listener=%q,reason=%q}", "plant", reason)
}

// What shows an attack whatever the reason.
const (
	refusedAtAll = "edge_agent_listener_refused_total{"
	badFrames    = "edge_agent_listener_bad_frames_total"
)

// ordeal is an attack, and what its listener must have counted before it ends.
type ordeal struct {
	attack string
	counts []rise
}

// TestAGoodDeviceOnTCPDoesNotFeelAttacks has one after the other done to the
// listener of a device that publishes all the while: each is refused and
// counted, the agent stays small, and neither that device nor one that connects
// meanwhile waits longer.
func TestAGoodDeviceOnTCPDoesNotFeelAttacks(t *testing.T) {
	a, address := besieged(t, "tcp", impatient)
	good := newGoodDevice(t, mcp.Config{Name: "good"}, tcp.NewDialer(address, nil))
	good.feelsNothing(t, a, address, func() time.Duration { return welcomeTime(t, address) },
		ordeal{attack: "connections that say nothing", counts: []rise{{refusedFor("hello_timeout"), 50}, {refusedFor("max_handshakes"), 50}}},
		ordeal{attack: "slow loris before HELLO", counts: []rise{{refusedFor("hello_timeout"), 50}, {refusedFor("max_handshakes"), 50}}},
		ordeal{attack: "slow loris inside a frame", counts: []rise{{refusedFor("frame_timeout"), 50}}},
		ordeal{attack: "half-open connections", counts: []rise{{refusedFor("heartbeat_missed"), 50}}},
		ordeal{attack: "a flood of HELLOs", counts: []rise{{refusedFor("max_connections_per_address"), 100}}},
		ordeal{attack: "a flood of HELLOs on each connection", counts: []rise{{refusedFor("out_of_place"), 100}}},
		ordeal{attack: "10,000 connections", counts: []rise{{refusedAtAll, 9_000}}},
		ordeal{attack: "random bytes", counts: []rise{{badFrames, 100}}},
		ordeal{attack: "hostile protobuf", counts: []rise{{refusedFor("bad_payload"), 100}, {refusedFor("window"), 1}}},
	)
}

// welcomeTime is how long a device takes to be welcomed, from connecting on.
func welcomeTime(t *testing.T, address string) time.Duration {
	t.Helper()
	hello := helloFrame("newcomer", "")
	began := time.Now()
	c, err := dialFrom(t.Context(), address, "127.0.0.1")
	if err != nil {
		t.Fatalf("a new device: %v", err)
	}
	defer c.Close()
	p := &rawPeer{t: t, conn: c}
	p.write(hello)
	p.wants(mcp.CommandWelcome)
	return time.Since(began)
}

func TestAHostilePayloadIsAnsweredWithItsCodeAndNothingOfItIsStored(t *testing.T) {
	t.Parallel()
	a, address, _ := plant(t, "tcp", impatient)
	good := newGoodDevice(t, mcp.Config{Name: "good"}, tcp.NewDialer(address, nil))
	var running sync.WaitGroup
	for i, p := range hostilePayloads() {
		running.Go(func() {
			peer := connect(t, address)
			peer.hello(name("bad", i))
			peer.write(frame(mcp.CommandPublish, p.payload))
			peer.endsWith(p.name, p.code)
			peer.isHungUpOn()
		})
	}
	running.Wait()
	good.publish(t)
	good.isWell(t)
	if n := a.metric("edge_agent_device_records_total"); n != float64(good.said) {
		t.Errorf("%v records are stored, and the good device has published %d", n, good.said)
	}
}

// Somebody else on the machine may have taken the port.
func TestAnAgentWhosePortIsTakenSaysSo(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	config, _ := configure(t, fmt.Sprintf(`
[agent]
id = "gw-01"
data_dir = "DATA"
[admin]
listen = "ADMIN"
[[listen]]
name = "plant"
transport = "tcp"
address = %q
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = %q }
`, taken.Addr(), filepath.Join(t.TempDir(), "out.jsonl")))
	p := launch(t, binary, "run", "-c", config)
	eventually(t, patience, "the agent to end", p.ended)
	if code := p.cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(p.output(), "listener plant: tcp "+taken.Addr().String()) || strings.Contains(p.output(), "panic") {
		t.Errorf("it ended with %d: %s", code, tail(p.output(), 1000))
	}
}
