package mcp_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// gated is an accepted Conn on which a Gate has proven the first datagram.
type gated struct {
	transport.Conn
	gate     *mcp.Gate
	admitted bool
}

var home = netip.MustParseAddrPort("192.0.2.7:4711")

func (g *gated) Read() ([]byte, error) {
	for {
		datagram, err := g.Conn.Read()
		if err != nil || g.admitted {
			return datagram, err
		}
		reply, admit := g.gate.Check(home, datagram)
		if admit {
			g.admitted = true
			return datagram, nil
		}
		if reply != nil {
			if err := g.Write(reply); err != nil {
				return nil, err
			}
		}
	}
}

// overDatagrams is connect for a link of datagrams, with a Gate at the server.
func overDatagrams(w transporttest.Weather, clientCfg, serverCfg mcp.Config, ch, sh mcp.Handler) *pair {
	a, b := transporttest.Datagrams(w)
	clientCfg.Role, clientCfg.Name, clientCfg.Epoch = mcp.Client, "press-7", 1
	serverCfg.Role, serverCfg.Name, serverCfg.Epoch = mcp.Server, "gw-01", 2
	clientCfg.HelloTimeout, serverCfg.HelloTimeout = time.Hour, time.Hour
	clientCfg.Heartbeat, serverCfg.Heartbeat = time.Hour, time.Hour // the worst weather makes longer pauses than 90 s
	p := &pair{
		client:    mcp.NewSession(a, clientCfg, ch),
		server:    mcp.NewSession(&gated{Conn: b, gate: mcp.NewGate()}, serverCfg, sh),
		clientErr: make(chan error, 1), serverErr: make(chan error, 1),
	}
	var cctx, sctx context.Context
	cctx, p.stopClient = context.WithCancel(context.Background())
	sctx, p.stopServer = context.WithCancel(context.Background())
	go func() { p.clientErr <- p.client.Run(cctx) }()
	go func() { p.serverErr <- p.server.Run(sctx) }()
	return p
}

// ledger is a Handler like receiver, for several epochs, with commits that take
// their time. It complains about what comes out of order.
type ledger struct {
	mcp.NoHandler
	t      *testing.T
	commit time.Duration

	mu    sync.Mutex
	epoch record.Epoch
	safe  map[string]uint64 // by epoch and channel
	got   map[string]int    // records, likewise
}

func newLedger(t *testing.T, commit time.Duration) *ledger {
	return &ledger{t: t, commit: commit, safe: make(map[string]uint64), got: make(map[string]int)}
}

func (l *ledger) key(channel string) string { return fmt.Sprintf("%d/%s", l.epoch, channel) }

func (l *ledger) Open(_ context.Context, p mcp.Peer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch = p.Epoch
	return nil
}

func (l *ledger) Channel(name string) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.safe[l.key(name)], nil
}

// Publish wants the payloads of each channel and epoch to be 1, 2, 3 and so on,
// behind the epoch.
func (l *ledger) Publish(_ context.Context, p *mcp.Publish) (mcp.Commit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := l.key(string(p.Channel))
	for n, raw := range p.Records() {
		var r record.Record
		if err := r.Unmarshal(raw); err != nil {
			l.t.Errorf("record %d of %s: %v", n, key, err)
		}
		l.got[key]++
		if want := fmt.Sprintf("%s %d", key, l.got[key]); string(r.Payload) != want || n != uint64(l.got[key]) {
			l.t.Errorf("record %d of %s is %q instead of %q", n, key, r.Payload, want)
		}
	}
	c, last := &commit{done: make(chan struct{})}, p.Last()
	time.AfterFunc(l.commit, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.safe[key] = last
		close(c.done)
	})
	return c, nil
}

func (l *ledger) taken(epoch record.Epoch, channel string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.got[fmt.Sprintf("%d/%s", epoch, channel)]
}

// fill publishes n records as a ledger wants them.
func fill(t *testing.T, o *mcp.Outbox, epoch record.Epoch, channel string, n int) {
	t.Helper()
	for i := range n {
		r := record.Record{Device: "press-7", Stream: "s", Payload: fmt.Appendf(nil, "%d/%s %d", epoch, channel, i+1)}
		if err := o.Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// flush waits until o is empty, or a session has ended.
func (p *pair) flush(t *testing.T, o *mcp.Outbox) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, s := range []*mcp.Session{p.client, p.server} {
		go func() {
			select {
			case <-s.Done():
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	if err := o.Flush(ctx); err != nil {
		_, ours := p.client.State()
		_, theirs := p.server.State()
		t.Fatalf("%v; the client: %v, the server: %v", err, ours, theirs)
	}
}

func anyWeather(t *rapid.T) transporttest.Weather {
	w := transporttest.Weather{
		Seed:       rapid.Uint64().Draw(t, "seed"),
		Loss:       rapid.Float64Range(0, 0.25).Draw(t, "loss"),
		Duplicate:  rapid.Float64Range(0, 0.2).Draw(t, "duplicate"),
		Corrupt:    rapid.Float64Range(0, 0.05).Draw(t, "corrupt"),
		Delay:      time.Duration(rapid.IntRange(0, 100).Draw(t, "delay")) * time.Millisecond,
		Jitter:     time.Duration(rapid.IntRange(0, 300).Draw(t, "jitter")) * time.Millisecond,
		MaxMessage: rapid.IntRange(300, 1400).Draw(t, "datagram"),
	}
	if at := time.Duration(rapid.IntRange(-5000, 5000).Draw(t, "cut at")) * time.Millisecond; at > 0 {
		w.Cut = func(after time.Duration) bool { return after > at && after < at+30*time.Second }
	}
	return w
}

func TestInAnyWeatherEveryRecordArrivesOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := anyWeather(rt)
		window := rapid.IntRange(1, 300).Draw(rt, "window")
		n := rapid.IntRange(1, 400).Draw(rt, "records")
		commits := time.Duration(rapid.IntRange(0, 200).Draw(rt, "commit")) * time.Millisecond
		bubble(t, func(t *testing.T) {
			up, down := outbox(t, mcp.OutboxConfig{Channel: "up"}), outbox(t, mcp.OutboxConfig{Channel: "down"})
			cfg := mcp.Config{WindowRecords: window, WindowBytes: 64 << 10}
			client, server := cfg, cfg
			client.Outboxes, server.Outboxes = []*mcp.Outbox{up}, []*mcp.Outbox{down}
			ch, sh := newLedger(t, commits), newLedger(t, commits)
			p := overDatagrams(w, client, server, ch, sh)
			defer p.stop()
			watching, stop := context.WithCancel(t.Context())
			var watch sync.WaitGroup
			defer watch.Wait()
			defer stop()
			watch.Go(func() {
				for watching.Err() == nil {
					for _, s := range []*mcp.Session{p.client, p.server} {
						if frames, records, size := s.Early(); frames > window || records > window || size > 64<<10 {
							t.Errorf("%d frames with %d records and %d bytes wait for their turn", frames, records, size)
						}
					}
					<-time.After(10 * time.Millisecond)
				}
			})
			fill(t, up, 1, "up", n)
			fill(t, down, 2, "down", n)
			p.flush(t, up)
			p.flush(t, down)
			if sh.taken(1, "up") != n || ch.taken(2, "down") != n {
				t.Errorf("of %d records %d and %d came", n, sh.taken(1, "up"), ch.taken(2, "down"))
			}
			for _, s := range []*mcp.Session{p.client, p.server} {
				if frames, records, size := s.Early(); frames+records+size != 0 {
					t.Errorf("%d frames with %d records and %d bytes are left over", frames, records, size)
				}
			}
		})
	})
}

// moored is an end that stays when a session on it ends, as an address does.
type moored struct {
	transport.Conn
	left chan struct{}
}

func (m *moored) Close() error {
	select {
	case <-m.left:
	default:
		close(m.left)
		return m.SetReadDeadline(time.Unix(1, 0))
	}
	return nil
}

func (m *moored) Read() ([]byte, error) {
	b, err := m.Conn.Read()
	select {
	case <-m.left:
		return nil, transport.ErrLost
	default:
		return b, err
	}
}

func TestAClientThatRestartsOnItsAddressBeginsANewEpochUnharmed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := anyWeather(rt)
		w.Cut = nil
		starts := rapid.SliceOfN(rapid.IntRange(1, 200), 1, 4).Draw(rt, "records")
		bubble(t, func(t *testing.T) {
			a, b := transporttest.Datagrams(w)
			sh := newLedger(t, 10*time.Millisecond)
			server := mcp.NewSession(&gated{Conn: b, gate: mcp.NewGate()},
				mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 99, HelloTimeout: time.Hour, Heartbeat: time.Hour}, sh)
			ctx, cancel := context.WithCancel(context.Background())
			go server.Run(ctx)
			for i, n := range starts {
				epoch := record.Epoch(i + 1)
				up := outbox(t, mcp.OutboxConfig{})
				_ = a.SetReadDeadline(time.Time{})
				client := mcp.NewSession(&moored{Conn: a, left: make(chan struct{})},
					mcp.Config{Name: "press-7", Epoch: epoch, HelloTimeout: time.Hour, Outboxes: []*mcp.Outbox{up}}, mcp.NoHandler{})
				running, crash := context.WithCancel(context.Background())
				go client.Run(running)
				fill(t, up, epoch, "main", n)
				if i == len(starts)-1 || n%2 == 0 {
					(&pair{client: client, server: server}).flush(t, up)
					if got := sh.taken(epoch, "main"); got != n {
						t.Errorf("of %d records of epoch %d %d came", n, epoch, got)
					}
				} else {
					<-time.After(time.Second) // and now it crashes, with records on their way
				}
				client.Abandon()
				crash()
				<-client.Done()
			}
			cancel()
			<-server.Done()
		})
	})
}

// It takes 12 to 34 seconds, by the seed. With a receiver that drops what comes
// early, so that the sender has to go back to each hole, it takes 21 minutes.
func TestTenThousandRecordsCrossABadNetworkInAMinute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{MaxRecords: 10000})
		sh := newLedger(t, time.Millisecond)
		w := transporttest.Weather{Seed: 1, Loss: 0.2, Jitter: 300 * time.Millisecond, Duplicate: 0.05}
		p := overDatagrams(w, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{}, mcp.NoHandler{}, sh)
		defer p.stop()
		start := time.Now()
		fill(t, up, 1, "main", 10000)
		p.flush(t, up)
		if took := time.Since(start); took > time.Minute || sh.taken(1, "main") != 10000 {
			t.Errorf("%d records in %v", sh.taken(1, "main"), took)
		}
	})
}

func TestACutOfThirtySecondsIsSurvived(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{})
		sh := newLedger(t, time.Millisecond)
		w := transporttest.Weather{
			Delay: 20 * time.Millisecond,
			Cut:   func(after time.Duration) bool { return after > time.Second && after < 31*time.Second },
		}
		p := overDatagrams(w, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{}, mcp.NoHandler{}, sh)
		defer p.stop()
		fill(t, up, 1, "main", 10)
		<-time.After(1500 * time.Millisecond)
		start := time.Now()
		r := record.Record{Device: "press-7", Stream: "s", Payload: []byte("1/main 11")}
		if err := up.Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		p.flush(t, up)
		if took := time.Since(start); took > time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

func TestARequestInADatagramThatComesTwiceIsDoneOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := &counting{}
		p := overDatagrams(transporttest.Weather{Duplicate: 1}, mcp.Config{}, mcp.Config{}, mcp.NoHandler{}, h)
		defer p.stop()
		<-p.client.Opened()
		for range 10 {
			if _, err := p.client.Call(t.Context(), mcp.Request{Method: "add"}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.n != 10 {
			t.Errorf("%d requests were done", h.n)
		}
	})
}
