package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
)

// A good device feels an attack if its median latency is more than twice the one
// just before, and more than the floor: the attackers, the device and the agent
// share two cores here, and at that level the scheduler says more than the agent.
const (
	slowdown     = 2
	latencyFloor = 2 * time.Millisecond
	samples      = 100 // for each median, at least
)

// hostileMemory is the most that the agent may ever have had resident under
// attack, in bytes, file-backed pages included. It starts with a quarter of it.
const hostileMemory = 96 << 20

// patience for what must come soon.
const patience = 15 * time.Second

// shippedBinary is the agent as it is shipped: the race detector would spoil
// figures of time and memory.
var shippedBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "edge-agent-shipped")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../../cmd/edge-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// besieged is an agent, as it is shipped, with one listener.
func besieged(t *testing.T, transport, settings string) (a *agent, address string) {
	t.Helper()
	path, err := shippedBinary()
	if err != nil {
		t.Fatal(err)
	}
	a, address, _ = plantOf(t, path, transport, settings)
	return a, address
}

// metric adds up the samples of /metrics that begin so.
func (a *agent) metric(prefix string) (sum float64) {
	_, body := a.get("/metrics")
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		fields := strings.Fields(line)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			a.t.Errorf("%v in %s", err, line)
		}
		sum += v
	}
	return sum
}

// rise is by how much a metric must rise; the name may be cut short, and then it
// is the sum of all that begin so.
type rise struct {
	metric string
	by     float64
}

// risen says, from now on, whether all of these have.
func (a *agent) risen(rises ...rise) func() bool {
	before := make(map[string]float64)
	for _, r := range rises {
		before[r.metric] = a.metric(r.metric)
	}
	return func() bool {
		for _, r := range rises {
			if a.metric(r.metric) < before[r.metric]+r.by {
				return false
			}
		}
		return true
	}
}

// isQuiet waits until only the good device is left.
func (a *agent) isQuiet(t testing.TB) {
	t.Helper()
	eventually(t, patience, "the attackers to be gone", func() bool {
		return a.metric("edge_agent_listener_connections") == 1 && a.metric("edge_agent_listener_handshakes") == 0
	})
}

// isSmall bounds what the agent has ever had resident.
func (a *agent) isSmall(t testing.TB) {
	t.Helper()
	most := a.memory(t, "VmHWM")
	t.Logf("the agent had at most %d KiB resident", most>>10)
	if most > hostileMemory {
		t.Errorf("the agent had %d KiB resident, %d are the most", most>>10, hostileMemory>>10)
	}
}

// peers are the senders that the agent knows, with where they are.
func (a *agent) peers() map[string]string {
	_, body := a.get("/api/v1/peers")
	var list []struct{ Sender, Remote string }
	if err := json.Unmarshal(body, &list); err != nil {
		a.t.Errorf("/api/v1/peers: %v", err)
	}
	peers := make(map[string]string)
	for _, p := range list {
		peers[p.Sender] = p.Remote
	}
	return peers
}

// goodDevice publishes one record at a time, on a session that must not end.
type goodDevice struct {
	name    string
	outbox  *mcp.Outbox
	session *mcp.Session
	info    transport.Info
	ended   chan error
	said    int64
}

func newGoodDevice(t testing.TB, cfg mcp.Config, dialer transport.Dialer) *goodDevice {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := dialer.Dial(ctx, mcp.NewStreamFramer(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	g := &goodDevice{name: cfg.Name, info: conn.Info(), ended: make(chan error, 1)}
	if g.outbox, err = mcp.NewOutbox(mcp.OutboxConfig{}); err != nil {
		t.Fatal(err)
	}
	cfg.Epoch, cfg.Outboxes = mcp.NewEpoch(), []*mcp.Outbox{g.outbox}
	g.session = mcp.NewSession(conn, cfg, mcp.NoHandler{})
	running, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.ended <- g.session.Run(running)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	g.publish(t)
	return g
}

// publish returns how long it took until a record was acknowledged.
func (g *goodDevice) publish(t testing.TB) time.Duration {
	t.Helper()
	g.said++
	r := record.Record{Device: g.name, Stream: "state", Points: []record.Point{{Name: "n", Value: record.Int(g.said)}}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	err := g.outbox.Publish(ctx, r)
	if err == nil {
		err = g.outbox.Flush(ctx)
	}
	if err != nil {
		t.Fatalf("the good device: %v", err)
	}
	return time.Since(began)
}

// isWell wants the session never to have ended, and nothing to have been sent
// twice where nothing gets lost.
func (g *goodDevice) isWell(t testing.TB) {
	t.Helper()
	select {
	case err := <-g.ended:
		t.Fatalf("the good device's session has ended: %v", err)
	default:
	}
	if state, err := g.session.State(); state != mcp.Open {
		t.Errorf("the good device's session is %v: %v", state, err)
	}
	if s := g.outbox.Stats(); s.Resent > 0 && g.info.Reliable {
		t.Errorf("the good device sent %d of %d records again", s.Resent, s.Published)
	}
}

// feelsNothing has one attack after the other made until it is counted, compares
// how long the good device waits then and just before, and wants its session to
// go on and the agent to stay small. newcomer, unless it is nil, is measured like
// publishing.
func (g *goodDevice) feelsNothing(t *testing.T, a *agent, address string, newcomer func() time.Duration, ordeals ...ordeal) {
	t.Helper()
	for _, o := range ordeals {
		t.Run(o.attack, func(t *testing.T) { g.endures(t, a, address, newcomer, o) })
	}
}

// looks is how often a latency is measured at most: on a machine that does other
// work too, one look may meet that work. What an attack does, it does each time.
const looks = 3

func (g *goodDevice) endures(t *testing.T, a *agent, address string, newcomer func() time.Duration, o ordeal) {
	for look := 1; ; look++ {
		usual, attacked := g.look(t, a, address, newcomer, o)
		if look < looks && (felt(usual.publish, attacked.publish) || felt(usual.join, attacked.join)) {
			continue
		}
		compare(t, "PUBLISH to ACK", usual.publish, attacked.publish)
		if newcomer != nil {
			compare(t, "connecting to WELCOME", usual.join, attacked.join)
		}
		break
	}
	g.isWell(t)
	a.isSmall(t)
	a.isQuiet(t)
}

// latency is what devices feel.
type latency struct{ publish, join time.Duration }

// look measures without and then under the attack, until that is counted.
func (g *goodDevice) look(t *testing.T, a *agent, address string, newcomer func() time.Duration, o ordeal) (usual, attacked latency) {
	publish := func() time.Duration { return g.publish(t) }
	usual = latency{median(publish, nil), median(newcomer, nil)}
	counted, late := a.risen(o.counts...), time.Now().Add(patience)
	attacker := attack(t, o.attack, address)
	attacker.says(attackBegun)
	attacked.publish = median(publish, func() bool { return counted() || time.Now().After(late) })
	attacked.join = median(newcomer, nil)
	if attacker.ended() {
		t.Errorf("the attacker has given up: %s", attacker.output())
	}
	attacker.kill()
	if !counted() {
		t.Errorf("after %v the attack is not counted: %v", patience, o.counts)
	}
	return usual, attacked
}

// median is that of at least so many samples, and of more until enough. The
// pauses between them leave an attacker something of the processors.
func median(sample func() time.Duration, enough func() bool) time.Duration {
	var all []time.Duration
	for sample != nil && (len(all) < samples || enough != nil && !enough()) {
		for range samples / 4 {
			all = append(all, sample())
			<-time.After(time.Millisecond)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// felt says that an attack makes others wait too long.
func felt(usual, attacked time.Duration) bool {
	return attacked > slowdown*usual && attacked > latencyFloor
}

func compare(t *testing.T, what string, usual, attacked time.Duration) {
	t.Helper()
	t.Logf("%s: usually %v, under attack %v", what, usual.Round(time.Microsecond), attacked.Round(time.Microsecond))
	if felt(usual, attacked) {
		t.Errorf("%s takes %v under attack instead of %v", what, attacked, usual)
	}
}

// rawPeer says what no Session would.
type rawPeer struct {
	t    testing.TB
	conn net.Conn
	in   []byte
}

// connect connects over TCP.
func connect(t testing.TB, address string) *rawPeer {
	t.Helper()
	c, err := dialFrom(t.Context(), address, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &rawPeer{t: t, conn: c}
}

func (p *rawPeer) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Errorf("write: %v", err)
	}
}

// hello introduces the peer and waits for WELCOME.
func (p *rawPeer) hello(sender string) {
	p.t.Helper()
	p.write(helloFrame(sender, ""))
	p.wants(mcp.CommandWelcome)
}

// next reads a frame.
func (p *rawPeer) next() (mcp.Frame, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	framer := mcp.NewStreamFramer(0, 0)
	buf := make([]byte, 4096)
	for {
		n, msg, err := framer.Split(p.in, false)
		if msg != nil || err != nil {
			p.in = p.in[n:]
			if err != nil {
				return mcp.Frame{}, err
			}
			return mcp.ParseFrame(msg)
		}
		n, err = p.conn.Read(buf)
		p.in = append(p.in, buf[:n]...)
		if err != nil && n == 0 {
			return mcp.Frame{}, err
		}
	}
}

// wants reads until a frame with this command comes.
func (p *rawPeer) wants(c mcp.Command) mcp.Frame {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil || f.Command == mcp.CommandError && c != mcp.CommandError {
			p.t.Errorf("instead of %v: %v %q, %v", c, f.Command, f.Payload, err)
			return mcp.Frame{}
		}
		if f.Command == c {
			return f
		}
	}
}

// endsWith reads until ERROR or CLOSE, and wants its code.
func (p *rawPeer) endsWith(what string, code mcp.Code) {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil {
			p.t.Errorf("%s: no ERROR %v: %v", what, code, err)
			return
		}
		if f.Command != mcp.CommandError && f.Command != mcp.CommandClose {
			continue
		}
		if len(f.Payload) < 2 || f.Payload[0] != 8 || mcp.Code(f.Payload[1]) != code {
			p.t.Errorf("%s: the session ends with %q, want %v", what, f.Payload, code)
		}
		return
	}
}

// isHungUpOn waits for the agent to close the connection.
func (p *rawPeer) isHungUpOn() {
	p.t.Helper()
	for {
		_, err := p.next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.t.Error("the agent does not hang up")
		}
		if err != nil {
			return
		}
	}
}
