package mcp_test

import (
	"context"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// TestFloods: one address floods the listener with connections, and a good
// device beside it notices nothing.
func TestFloods(t *testing.T) {
	for name, attack := range map[string]flood{
		"ten thousand that say nothing": {each: 20, total: 10000, keep: true},
		"HELLOs": {each: 5, total: 1000, say: func() []byte {
			h := mcp.Hello{Sender: "flood", Epoch: mcp.NewEpoch(), Channels: []string{"main"}}
			return frame(t, mcp.CommandHello, h.Append(nil))
		}},
		"no MCP": {each: 5, total: 1000, say: func() []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }},
	} {
		t.Run(name, func(t *testing.T) { withstand(t, attack) })
	}
}

// flood is an attack from one address: each 5 ms so many connections.
type flood struct {
	each, total int
	say         func() []byte // nil: nothing
	keep        bool          // they stay connected as long as they are let
}

// run attacks until ctx ends. Attackers are on machines of their own, and so
// must not take the processor from the agent: they get what it leaves.
func (f flood) run(ctx context.Context, address string, attacks *atomic.Int64) {
	runtime.LockOSThread() // and never unlocked: the thread ends with its priority
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), 19)
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	var held []net.Conn
	for ctx.Err() == nil {
		<-pace.C
		for range f.each {
			c, err := net.Dial("tcp", address)
			if err != nil {
				continue // the listener's backlog is full
			}
			attacks.Add(1)
			if f.say != nil {
				_, _ = c.Write(f.say()) // it may have been hung up on
			}
			if f.keep {
				held = append(held, c)
				continue
			}
			_ = c.Close()
		}
	}
	for _, c := range held {
		_ = c.Close()
	}
}

// withstand wants a good device to wait at most twice as long for an
// acknowledgement when there is a flood. This machine has other work as well,
// so it may take a second and a third look.
func withstand(t *testing.T, attack flood) {
	b := openStore(t, t.TempDir(), store.Config{})
	cfg := limits()
	cfg.MaxConnections, cfg.MaxConnectionsPerAddress, cfg.MaxHandshakes = 10000, 256, 256
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: cfg})
	good := &patient{peer: connect(t, s.address, 2)}
	good.peer.hello("good")
	good.waits(100)

	var usual, flooded time.Duration
	for look := 0; look < 3 && (look == 0 || flooded > 2*usual); look++ {
		usual, flooded = attack.compare(t, s, good)
	}
	if flooded > 2*usual {
		t.Errorf("a record takes %v, and without the flood %v", flooded, usual)
	}
	if peers := s.Peers(); !slices.ContainsFunc(peers, func(p driver.PeerStatus) bool { return p.Sender == "good" && p.State == mcp.Open && p.Reconnects == 0 }) {
		t.Errorf("%+v", peers)
	}
}

// compare measures in turns, with and without the flood.
func (f flood) compare(t *testing.T, s *server, good *patient) (usual, flooded time.Duration) {
	t.Helper()
	var without, with []time.Duration
	var attacks atomic.Int64
	base, most := runtime.NumGoroutine(), 0
	for attacks.Load() < int64(f.total) {
		without = append(without, good.waits(50)...)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { f.run(ctx, s.address, &attacks) })
		for enough := attacks.Load() + int64(f.total)/4; attacks.Load() < enough; {
			with = append(with, good.waits(20)...)
			most = max(most, runtime.NumGoroutine()-base)
		}
		stop()
		running.Wait()
	}
	usual, flooded = median(without), median(with)
	t.Logf("%v usually, %v flooded by %d connections, at most %d goroutines more; %+v", usual, flooded, attacks.Load(), most, s.Stats().Refusals)
	// 64 handshakes, 256 connections at the very most, and 32 that are told that
	// there is no room.
	if most > 400 {
		t.Errorf("%d goroutines more", most)
	}
	return usual, flooded
}

// patient waits for each of its records to be acknowledged.
type patient struct {
	peer *rawPeer
	last uint64
}

func (p *patient) waits(n int) []time.Duration {
	p.peer.t.Helper()
	times := make([]time.Duration, n)
	for i := range times {
		start := time.Now()
		p.peer.publishRecords(p.last, record.Record{Device: "good", Stream: "s", Payload: []byte("x")})
		p.last++
		p.peer.wantAck(p.last)
		times[i] = time.Since(start)
	}
	return times
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
