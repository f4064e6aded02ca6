package mcp_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
)

// receiver is a Handler that keeps what it takes, as a store would: across
// sessions, with the last safe number of each channel.
type receiver struct {
	mcp.NoHandler
	mu      sync.Mutex
	safe    map[string]uint64
	got     []string // payloads
	commits []*commit
	manual  bool // commits end when the test says so
	block   chan struct{}
	opened  []mcp.Peer
	refuse  error
}

func newReceiver() *receiver { return &receiver{safe: make(map[string]uint64)} }

type commit struct {
	done chan struct{}
	err  error
}

func (c *commit) Done() <-chan struct{} { return c.done }
func (c *commit) Err() error            { return c.err }

func (r *receiver) Open(_ context.Context, p mcp.Peer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened = append(r.opened, p)
	return r.refuse
}

func (r *receiver) Channel(name string) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.safe[name], nil
}

func (r *receiver) Publish(ctx context.Context, p *mcp.Publish) (mcp.Commit, error) {
	if r.block != nil {
		select {
		case <-r.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var rec record.Record
	for _, raw := range p.Records() {
		if err := rec.Unmarshal(raw); err != nil {
			return nil, &mcp.Error{Code: mcp.CodeBadPayload, Reason: err.Error()}
		}
		r.got = append(r.got, string(rec.Payload))
	}
	r.safe[string(p.Channel)] = p.Last()
	c := &commit{done: make(chan struct{})}
	if !r.manual {
		close(c.done)
	}
	r.commits = append(r.commits, c)
	return c, nil
}

func (r *receiver) payloads() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.got...)
}

func (r *receiver) Request(ctx context.Context, q mcp.Request) mcp.Response {
	switch q.Method {
	case "echo":
		return mcp.Response{Payload: q.Payload, ContentType: q.ContentType}
	case "wait":
		<-ctx.Done()
	}
	return r.NoHandler.Request(ctx, q)
}

func rec(i int) record.Record {
	return record.Record{Device: "press-7", Stream: "s", Payload: fmt.Appendf(nil, "%d", i)}
}

func upTo(n int) (want []string) {
	for i := range n {
		want = append(want, fmt.Sprint(i+1))
	}
	return want
}

func same(a, b []string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// pair is two sessions over one link, running.
type pair struct {
	client, server       *mcp.Session
	clientErr, serverErr chan error
	stopClient           context.CancelFunc
	stopServer           context.CancelFunc
}

func connect(serial bool, clientCfg, serverCfg mcp.Config, ch, sh mcp.Handler) *pair {
	a, b := link(serial)
	clientCfg.Role, serverCfg.Role = mcp.Client, mcp.Server
	if clientCfg.Name == "" {
		clientCfg.Name, clientCfg.Epoch = "press-7", 1
	}
	if serverCfg.Name == "" {
		serverCfg.Name, serverCfg.Epoch = "gw-01", 2
	}
	p := &pair{
		client: mcp.NewSession(a, clientCfg, ch), server: mcp.NewSession(b, serverCfg, sh),
		clientErr: make(chan error, 1), serverErr: make(chan error, 1),
	}
	var cctx, sctx context.Context
	cctx, p.stopClient = context.WithCancel(context.Background())
	sctx, p.stopServer = context.WithCancel(context.Background())
	go func() { p.clientErr <- p.client.Run(cctx) }()
	go func() { p.serverErr <- p.server.Run(sctx) }()
	return p
}

func (p *pair) stop() {
	p.stopClient()
	p.stopServer()
	<-p.client.Done()
	<-p.server.Done()
}

func outbox(t *testing.T, cfg mcp.OutboxConfig) *mcp.Outbox {
	t.Helper()
	o, err := mcp.NewOutbox(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func publishAll(t *testing.T, o *mcp.Outbox, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := o.Publish(t.Context(), rec(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoPeersIntroduceThemselvesAndPublishBothWays(t *testing.T) {
	for _, serial := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			up, down := outbox(t, mcp.OutboxConfig{}), outbox(t, mcp.OutboxConfig{Channel: "down"})
			ch, sh := newReceiver(), newReceiver()
			p := connect(serial, mcp.Config{Outboxes: []*mcp.Outbox{up}, Heartbeat: 7 * time.Second}, mcp.Config{Outboxes: []*mcp.Outbox{down}}, ch, sh)
			defer p.stop()
			publishAll(t, up, 1, 100)
			publishAll(t, down, 1, 50)
			if err := up.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := down.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !same(sh.payloads(), upTo(100)) || !same(ch.payloads(), upTo(50)) {
				t.Errorf("server got %v, client got %v", sh.payloads(), ch.payloads())
			}
			if s, _ := p.server.State(); s != mcp.Open {
				t.Errorf("state %v", s)
			}
			if got := p.client.Peer().Heartbeat; got != 7*time.Second {
				t.Errorf("the heartbeat agreed on is %v", got)
			}
		})
	}
}

func TestNothingIsAcknowledgedBeforeItIsSafe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{})
		sh := newReceiver()
		sh.manual = true
		p := connect(false, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{}, newReceiver(), sh)
		defer p.stop()
		publishAll(t, up, 1, 1)
		synctest.Wait()
		publishAll(t, up, 2, 2)
		synctest.Wait()
		if n := len(sh.commits); n != 2 {
			t.Fatalf("%d commits", n)
		}
		close(sh.commits[1].done) // out of order: still waits for the first
		synctest.Wait()
		if n := up.Stats().Acknowledged; n != 0 {
			t.Errorf("%d acknowledged", n)
		}
		close(sh.commits[0].done)
		synctest.Wait()
		if n := up.Stats().Acknowledged; n != 2 {
			t.Errorf("%d acknowledged", n)
		}
	})
}

func TestAFailedCommitEndsTheSessionUnacknowledged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{})
		sh := newReceiver()
		sh.manual = true
		p := connect(false, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{}, newReceiver(), sh)
		defer p.stop()
		publishAll(t, up, 1, 1)
		synctest.Wait()
		sh.commits[0].err = errors.New("disk on fire")
		close(sh.commits[0].done)
		if err := <-p.clientErr; !mcp.IsCode(err, mcp.CodeInternal) {
			t.Errorf("the client learns %v", err)
		}
		if n := up.Stats().Acknowledged; n != 0 {
			t.Errorf("%d acknowledged", n)
		}
	})
}

func TestAFullStoreStopsTheReaderAndNotTheHeartbeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{MaxRecords: 10})
		sh := newReceiver()
		sh.block = make(chan struct{})
		p := connect(false, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{}, newReceiver(), sh)
		defer p.stop()
		publishAll(t, up, 1, 10)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := up.Publish(ctx, rec(11)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the eleventh: %v", err)
		}
		for _, s := range []*mcp.Session{p.client, p.server} {
			if state, err := s.State(); state != mcp.Open {
				t.Errorf("after ten minutes: %v, %v", state, err)
			}
		}
		close(sh.block)
		if err := up.Flush(t.Context()); err != nil || !same(sh.payloads(), upTo(10)) {
			t.Errorf("got %v, %v", sh.payloads(), err)
		}
	})
}

func TestARecordThatThePeerCantTakeIsRefusedWhereItIsPublished(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{})
		sh := newReceiver()
		p := connect(false, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{MaxPayload: 2000}, newReceiver(), sh)
		defer p.stop()
		publishAll(t, up, 1, 1)
		if err := up.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		large := rec(2)
		large.Payload = make([]byte, 2000)
		if err := up.Publish(t.Context(), large); !errors.Is(err, mcp.ErrRecordTooLarge) {
			t.Errorf("2000 bytes of payload in frames of 2000: %v", err)
		}
		publishAll(t, up, 2, 3)
		if err := up.Flush(t.Context()); err != nil || !same(sh.payloads(), upTo(3)) {
			t.Errorf("got %v, %v", sh.payloads(), err)
		}
	})
}

func TestSendingStopsAtTheWindow(t *testing.T) {
	for name, server := range map[string]mcp.Config{
		"records": {WindowRecords: 10},
		"bytes":   {WindowBytes: 10 * (2 + len(rawRecord(1)))},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				up := outbox(t, mcp.OutboxConfig{})
				sh := newReceiver()
				sh.manual = true
				p := connect(false, mcp.Config{Outboxes: []*mcp.Outbox{up}}, server, newReceiver(), sh)
				defer p.stop()
				for range 30 {
					if err := up.PublishRaw(t.Context(), rawRecord(1)); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if n := len(sh.payloads()); n != 10 {
					t.Errorf("%d records came", n)
				}
				for i := 0; len(sh.payloads()) < 30; i++ {
					close(sh.commits[i].done)
					synctest.Wait()
				}
				if state, err := p.server.State(); state != mcp.Open {
					t.Errorf("%v, %v", state, err)
				}
			})
		})
	}
}

func rawRecord(i int) []byte {
	r := rec(i)
	return r.Append(nil)
}

func TestTheReceiverRefusesWhatGoesBeyondTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sh := newReceiver()
		sh.manual = true
		r := newRaw(t, mcp.Config{WindowRecords: 4}, sh)
		r.say(mcp.CommandPublish, publishing(0, 1, 2, 3))
		r.say(mcp.CommandPublish, publishing(3, 4, 5))
		r.expectEnd(mcp.CodeWindowExceeded)
	})
}

func publishing(previous uint64, payloads ...int) []byte {
	p := publish{channel: "main", previous: previous}
	for _, i := range payloads {
		p.records = append(p.records, rawRecord(i))
	}
	return p.Append(nil)
}

func TestRepeatsAreAcknowledgedAndDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sh, counters := newReceiver(), new(mcp.Counters)
		r := newRaw(t, mcp.Config{Counters: counters}, sh)
		r.say(mcp.CommandPublish, publishing(0, 1, 2))
		r.expectAck(mcp.Position{Channel: "main", Number: 2})
		r.say(mcp.CommandPublish, publishing(0, 1, 2))
		r.expectAck(mcp.Position{Channel: "main", Number: 2})
		r.say(mcp.CommandPublish, publishing(1, 2, 3))
		r.expectAck(mcp.Position{Channel: "main", Number: 3})
		if !same(sh.payloads(), upTo(3)) || counters.Repeats.Load() != 3 || counters.Records.Load() != 3 {
			t.Errorf("got %v, %d repeats", sh.payloads(), counters.Repeats.Load())
		}
	})
}

// watchful notes what it is told of peers that were set back.
type watchful struct {
	*receiver
	said []string
}

func (w *watchful) SetBack(channel string, safe, published uint64) {
	w.said = append(w.said, fmt.Sprint(channel, " ", safe, " ", published))
}

func TestASenderThatKnowsLessThanItHasSentIsReportedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, counters := &watchful{receiver: newReceiver()}, new(mcp.Counters)
		w.safe["main"] = 5 // from sessions before
		r := newRaw(t, mcp.Config{Counters: counters}, w)
		r.say(mcp.CommandPublish, publishing(2, 3, 4))
		r.expectAck(mcp.Position{Channel: "main", Number: 5})
		r.say(mcp.CommandPublish, publishing(4, 5, 6))
		r.expectAck(mcp.Position{Channel: "main", Number: 6})
		if !same(w.said, []string{"main 5 3"}) || counters.SetBacks.Load() != 1 {
			t.Errorf("%q, %d", w.said, counters.SetBacks.Load())
		}
	})
}

func TestASenderThatGoesOnIsNotReported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := &watchful{receiver: newReceiver()}
		w.safe["main"] = 5
		r := newRaw(t, mcp.Config{}, w)
		r.say(mcp.CommandPublish, publishing(5, 6, 7))
		r.expectAck(mcp.Position{Channel: "main", Number: 7})
		r.say(mcp.CommandPublish, publishing(5, 6, 7)) // a repeat of what came in this session
		r.expectAck(mcp.Position{Channel: "main", Number: 7})
		if len(w.said) > 0 {
			t.Errorf("%q", w.said)
		}
	})
}

func TestAHoleIsRefusedAndAskedForOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sh := newReceiver()
		r := newRaw(t, mcp.Config{}, sh)
		r.say(mcp.CommandPublish, publishing(0, 1))
		r.expectAck(mcp.Position{Channel: "main", Number: 1})
		r.say(mcp.CommandPublish, publishing(2, 3))
		r.expectAck(mcp.Position{Channel: "main", Number: 1, ResendFrom: 2})
		r.say(mcp.CommandPublish, publishing(3, 4))
		r.say(mcp.CommandPublish, publishing(1, 2, 3, 4))
		r.expectAck(mcp.Position{Channel: "main", Number: 4})
		if !same(sh.payloads(), upTo(4)) {
			t.Errorf("got %v", sh.payloads())
		}
	})
}

func TestNumbersMayJumpWhereTheSenderSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sh := newReceiver()
		r := newRaw(t, mcp.Config{}, sh)
		p := publish{channel: "main", numbers: []uint64{5, 9}, records: [][]byte{rawRecord(1), rawRecord(2)}}
		r.say(mcp.CommandPublish, p.Append(nil))
		r.expectAck(mcp.Position{Channel: "main", Number: 9})
	})
}

func TestAPeerIsAnsweredInItsVersion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSilent(t, false, mcp.Config{}, newReceiver())
		r.version = 1
		hello := mcp.Hello{Sender: "press-7", Epoch: 1}
		r.say(mcp.CommandHello, hello.Append(nil))
		if f := r.expect(mcp.CommandWelcome); f.Version != 1 {
			t.Errorf("WELCOME in version %d", f.Version)
		}
		r.say(mcp.CommandHeartbeat, nil)
		if f := r.expect(mcp.CommandHeartbeatAck); f.Version != 1 {
			t.Errorf("HEARTBEAT_ACK in version %d", f.Version)
		}
		r.say(0x55, nil)
		r.expectEnd(mcp.CodeUnknownCommand)
	})
}

func TestMisbehaviourOnAStreamIsToldAndEndsIt(t *testing.T) {
	bad := mustFrame(t, 2, mcp.CommandHeartbeat, nil)
	bad[len(bad)-1] ^= 1
	for name, c := range map[string]struct {
		bytes []byte
		code  mcp.Code
	}{
		"not this protocol":     {[]byte("GET / HTTP/1.1\r\n\r\n"), mcp.CodeBadFrame},
		"a bad checksum":        {bad, mcp.CodeBadFrame},
		"an unknown version":    {[]byte("MC\x07\x03\x00\x00\x00\x00"), mcp.CodeUnknownVersion},
		"a payload too large":   {[]byte("MC\x02\x05\xff\xff\xff\xff"), mcp.CodeTooLarge},
		"an unknown command":    {mustFrame(t, 2, 0x7F, nil), mcp.CodeUnknownCommand},
		"a malformed payload":   {mustFrame(t, 2, mcp.CommandPublish, []byte{0xFF}), mcp.CodeBadPayload},
		"a second HELLO":        {mustFrame(t, 2, mcp.CommandHello, nil), mcp.CodeUnexpected},
		"a WELCOME to a server": {mustFrame(t, 2, mcp.CommandWelcome, nil), mcp.CodeUnexpected},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRaw(t, mcp.Config{}, newReceiver())
				if err := r.conn.Write(c.bytes); err != nil {
					t.Fatal(err)
				}
				r.expectEnd(c.code)
			})
		})
	}
}

func TestAServerWantsHelloFirstAndSoon(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSilent(t, false, mcp.Config{}, newReceiver())
		r.say(mcp.CommandPublish, publishing(0, 1))
		r.expectEnd(mcp.CodeHelloExpected)

		start := time.Now()
		r = newSilent(t, false, mcp.Config{HelloTimeout: 3 * time.Second}, newReceiver())
		r.expectEnd(mcp.CodeHelloTimeout)
		if d := time.Since(start).Round(time.Second); d > 5*time.Second {
			t.Errorf("after %v", d)
		}
	})
}

func TestAHandlerMayRefuseAPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sh := newReceiver()
		sh.refuse = &mcp.Error{Code: mcp.CodeNotAllowed, Reason: "unknown here"}
		p := connect(false, mcp.Config{}, mcp.Config{}, newReceiver(), sh)
		defer p.stop()
		if err := <-p.clientErr; !mcp.IsCode(err, mcp.CodeNotAllowed) {
			t.Errorf("the client learns %v", err)
		}
	})
}

func TestAPeerWithoutHelloIsAcknowledgedWhereTheLineIsTrusted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sh := newReceiver()
		r := newSilent(t, false, mcp.Config{Anonymous: "press-7"}, sh)
		r.version = 1
		for range 2 { // it restarts and counts from 1 again
			r.say(mcp.CommandPublish, publishing(0, 1, 2))
			r.expectAck(mcp.Position{Channel: "main", Number: 2})
		}
		if !same(sh.payloads(), []string{"1", "2", "1", "2"}) || !sh.opened[0].Anonymous || sh.opened[0].Sender != "press-7" {
			t.Errorf("got %v from %+v", sh.payloads(), sh.opened)
		}
	})
}

func TestADialedDeviceMayDoWithoutWelcomeWhereTheLineIsTrusted(t *testing.T) {
	for _, serial := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			a, b := link(serial)
			h := newReceiver()
			s := mcp.NewSession(a, mcp.Config{Role: mcp.Client, Name: "gw-01", Epoch: 1, Anonymous: "press-7"}, h)
			go s.Run(t.Context())
			go func() { // it knows neither HELLO nor heartbeats, and repeats itself until it is heard
				for {
					select {
					case <-s.Done():
						return
					case <-time.After(time.Second):
						_ = b.Write(mustFrame(t, 1, mcp.CommandPublish, publishing(0, 1)))
					}
				}
			}()
			for {
				msg, err := b.Read()
				if err != nil {
					t.Fatal(err)
				}
				if f, _ := mcp.ParseFrame(msg); f.Command == mcp.CommandAck {
					break
				}
			}
			if got := h.payloads(); len(got) != 1 || !s.Peer().Anonymous {
				t.Errorf("got %v from %+v", got, s.Peer())
			}
			b.Close()
			<-s.Done()
		})
	}
}

func TestStoppingAcknowledgesWhatIsUnderWayAndSaysGoodbye(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{})
		sh := newReceiver()
		sh.manual = true
		p := connect(false, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{}, newReceiver(), sh)
		publishAll(t, up, 1, 5)
		synctest.Wait()
		p.stopServer()
		synctest.Wait()
		for _, c := range sh.commits {
			close(c.done)
		}
		if err := <-p.serverErr; err != nil {
			t.Errorf("a stopped session returns %v", err)
		}
		if err := <-p.clientErr; !mcp.IsCode(err, mcp.CodeGoingAway) {
			t.Errorf("the client learns %v", err)
		}
		if n := up.Stats().Acknowledged; n != 5 {
			t.Errorf("%d acknowledged", n)
		}
		p.stop()
	})
}

func TestADeviceThatRestartsOnALineThatStaysUpIsWelcomedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sh := newReceiver()
		r := newSilent(t, true, mcp.Config{}, sh)
		for epoch := record.Epoch(1); epoch <= 2; epoch++ {
			sh.mu.Lock()
			sh.safe = make(map[string]uint64) // what a store would say of a fresh epoch
			sh.mu.Unlock()
			hello := mcp.Hello{Sender: "press-7", Epoch: epoch, Channels: []string{"main"}}
			r.say(mcp.CommandHello, hello.Append(nil))
			r.expect(mcp.CommandWelcome)
			r.say(mcp.CommandPublish, publishing(0, 1))
			r.expectAck(mcp.Position{Channel: "main", Number: 1})
		}
	})
}

func FuzzSession(f *testing.F) {
	hello := mcp.Hello{Sender: "press-7", Epoch: 1, Channels: []string{"main"}}
	h := mustFrame(f, 2, mcp.CommandHello, hello.Append(nil))
	f.Add(h, false)
	f.Add(append(h, mustFrame(f, 2, mcp.CommandPublish, publishing(0, 1, 2))...), true)
	f.Add(append(h, mustFrame(f, 1, mcp.CommandClose, nil)...), false)
	f.Add(append(h, mustFrame(f, 2, mcp.CommandRequest, (&mcp.Request{ID: 1, Method: "echo"}).Append(nil))...), true)
	f.Add(append(h, mustFrame(f, 2, mcp.CommandAck, mcp.AppendAck(nil, []mcp.Position{{Channel: "main", Number: 1}}))...), true)
	f.Fuzz(func(t *testing.T, stream []byte, serial bool) {
		o := outbox(t, mcp.OutboxConfig{})
		publishAll(t, o, 1, 3)
		a, b := link(serial)
		cfg := mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 1, Outboxes: []*mcp.Outbox{o}, Answers: mcp.NewAnswers()}
		s := mcp.NewSession(a, cfg, newReceiver())
		ctx, cancel := context.WithCancel(t.Context())
		go s.Run(ctx)
		go func() {
			b.Write(stream)
			b.Write(mustFrame(t, 2, mcp.CommandClose, nil))
			b.Close()
		}()
		for {
			if _, err := b.Conn.Read(make([]byte, 512)); err != nil {
				break
			}
		}
		cancel()
		<-s.Done()
	})
}
