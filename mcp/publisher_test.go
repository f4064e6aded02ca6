package mcp_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/mcp"
)

// agent accepts sessions from a Publisher's dialer, one after the other.
type agent struct {
	handler *receiver
	cfg     mcp.Config

	mu      sync.Mutex
	current *conn
	last    *mcp.Session // on it
	wg      sync.WaitGroup
}

func (a *agent) session() *mcp.Session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

func (a *agent) accept(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current = c
	cfg := a.cfg
	cfg.Role, cfg.Name, cfg.Epoch = mcp.Server, "gw-01", 9
	session := mcp.NewSession(c, cfg, a.handler)
	a.last = session
	a.wg.Go(func() { _ = session.Run(context.Background()) })
}

func (a *agent) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current != nil {
		a.current.Close()
	}
}

func newPublisher(t testing.TB, a *agent, serial bool, cfg mcp.PublisherConfig) *mcp.Publisher {
	t.Helper()
	cfg.Session.Name = "press-7"
	cfg.Dialer = dialer{serial: serial, accept: a.accept}
	p, err := mcp.NewPublisher(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAPublisherLosesAndRepeatsNothingHoweverOftenTheLineBreaks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cuts := rapid.SliceOfN(rapid.IntRange(1, 400), 0, 6).Draw(rt, "records between cuts")
		window := rapid.IntRange(1, 100).Draw(rt, "window")
		bubble(t, func(t *testing.T) {
			a := &agent{handler: newReceiver(), cfg: mcp.Config{WindowRecords: window}}
			p := newPublisher(t, a, false, mcp.PublisherConfig{})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- p.Run(ctx) }()
			sent := 0
			for _, n := range append(cuts, 5) {
				publishAll(t, p.Outbox, sent+1, sent+n)
				sent += n
				a.cut()
			}
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !same(a.handler.payloads(), upTo(sent)) {
				t.Errorf("of %d got %v", sent, a.handler.payloads())
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			a.wg.Wait()
		})
	})
}

func TestADeviceThatKeepsItsEpochGoesOnFromWelcome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := &agent{handler: newReceiver()}
		for start := range 3 { // three starts of the same device
			p := newPublisher(t, a, false, mcp.PublisherConfig{Session: mcp.Config{Epoch: 5}})
			ctx, cancel := context.WithCancel(t.Context())
			publishAll(t, p.Outbox, 10*start+1, 10*start+10)
			done := make(chan error)
			go func() { done <- p.Run(ctx) }()
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			cancel()
			<-done
		}
		a.wg.Wait()
		if !same(a.handler.payloads(), upTo(30)) || a.handler.safe["main"] != 30 {
			t.Errorf("got %v, safe %v", a.handler.payloads(), a.handler.safe)
		}
	})
}

func TestAReceiverBehindItsAcknowledgementsIsReportedAndServed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := &agent{handler: newReceiver()}
		p := newPublisher(t, a, false, mcp.PublisherConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		publishAll(t, p.Outbox, 1, 10)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.handler.mu.Lock()
		a.handler.safe["main"] = 4 // a restored disk
		a.handler.mu.Unlock()
		a.cut()
		publishAll(t, p.Outbox, 11, 20)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := p.Stats(); got.Behind == 0 || got.Acknowledged != 20 {
			t.Errorf("%+v", got)
		}
		if !same(a.handler.payloads(), upTo(20)) || a.handler.safe["main"] != 20 {
			t.Errorf("got %v, safe %v", a.handler.payloads(), a.handler.safe)
		}
		cancel()
		<-done
		a.wg.Wait()
	})
}

func TestAReceiverThatKnowsMoreThanWasSentMakesANewEpoch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := &agent{handler: newReceiver()}
		p := newPublisher(t, a, false, mcp.PublisherConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		publishAll(t, p.Outbox, 1, 3)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.handler.mu.Lock()
		a.handler.safe["main"] = 99
		first := a.handler.opened[0].Epoch
		a.handler.mu.Unlock()
		a.cut()
		publishAll(t, p.Outbox, 4, 6)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.handler.mu.Lock()
		last := a.handler.opened[len(a.handler.opened)-1].Epoch
		a.handler.mu.Unlock()
		if first == last || !same(a.handler.payloads(), upTo(6)) {
			t.Errorf("epochs %x and %x, got %v", first, last, a.handler.payloads())
		}
		cancel()
		<-done
		a.wg.Wait()
	})
}

func TestARecordThatNoPublishCarriesIsRefused(t *testing.T) {
	o := outbox(t, mcp.OutboxConfig{MaxBytes: 100})
	if err := o.PublishRaw(t.Context(), make([]byte, 100)); !errors.Is(err, mcp.ErrRecordTooLarge) {
		t.Errorf("got %v", err)
	}
}

// A serial line loses bytes now and then; lossy drops some Writes whole.
type lossy struct {
	*conn
	drop func() bool // the writer alone calls it
}

func (l *lossy) Write(b []byte) error {
	if l.drop() {
		return nil
	}
	return l.conn.Write(b)
}

func TestALossyLineDeliversAllOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lose := func(who string) func() bool {
			oneIn := rapid.IntRange(2, 9).Draw(rt, who+" loses one in")
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, who), 0))
			return func() bool { return rng.IntN(oneIn) == 0 }
		}
		a, b := lose("device"), lose("agent")
		bubble(t, func(t *testing.T) {
			x, y := link(true)
			up := outbox(t, mcp.OutboxConfig{BatchBytes: 100})
			sh := newReceiver()
			device := mcp.NewSession(&lossy{conn: x, drop: a},
				mcp.Config{Role: mcp.Server, Name: "press-7", Epoch: 1, Outboxes: []*mcp.Outbox{up}, Heartbeat: time.Hour}, mcp.NoHandler{})
			agent := mcp.NewSession(&lossy{conn: y, drop: b},
				mcp.Config{Role: mcp.Client, Name: "gw-01", Epoch: 2, HelloTimeout: time.Hour, Heartbeat: time.Hour}, sh)
			ctx, cancel := context.WithCancel(t.Context())
			go device.Run(ctx)
			go agent.Run(ctx)
			publishAll(t, up, 1, 60)
			if err := up.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !same(sh.payloads(), upTo(60)) {
				t.Errorf("got %v", sh.payloads())
			}
			cancel()
			<-device.Done()
			<-agent.Done()
		})
	})
}
