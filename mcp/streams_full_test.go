package mcp_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
)

func TestAFullStoreHoldsUpRecordsAndNothingElse(t *testing.T) {
	all, r := outboxes(t, "a", "b", "c"), newReceiver()
	r.block = make(chan struct{})
	p := overQUIC(t, mcp.Config{Outboxes: all}, mcp.Config{WindowRecords: 65536}, r, nil)
	const count, size = 900, 4 << 10 // of each, and so of all nearly three times the window
	for _, o := range all {
		for range count {
			if err := o.Publish(t.Context(), record.Record{Device: "press-7", Stream: "s", Payload: make([]byte, size)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 50 { // the network fills meanwhile
		for name, s := range map[string]*mcp.Session{"the client": p.client, "the server": p.server} {
			<-s.Opened()
			if _, err := s.Call(t.Context(), mcp.Request{Method: "echo", Payload: make([]byte, 64<<10)}); err != nil {
				t.Fatalf("%s asks: %v", name, err)
			}
		}
	}
	close(r.block)
	for _, o := range all {
		flushed(t, o)
	}
	if n := len(r.payloads()); n != len(all)*count {
		t.Errorf("%d records", n)
	}
}

func TestChannelsBeyondThePeersStreamsGoOnTheFirst(t *testing.T) {
	const channels, count = 80, 20
	names := make([]string, channels)
	for i := range names {
		names[i] = fmt.Sprintf("channel-%02d", i)
	}
	toServer, toClient, r := outboxes(t, names...), outboxes(t, names...), newReceiver()
	p := overQUIC(t, mcp.Config{Outboxes: toServer}, mcp.Config{Outboxes: toClient}, r, nil)
	for n := range count {
		for i, name := range names {
			say(t, toServer[i], name, n+1, n+1)
			say(t, toClient[i], name, n+1, n+1)
		}
	}
	for i, name := range names {
		flushed(t, toServer[i])
		flushed(t, toClient[i])
		expectAll(t, r, name, count)
		if stats := toServer[i].Stats(); stats.Resent > 0 {
			t.Errorf("%s: %+v", name, stats)
		}
	}
	if _, err := p.client.Call(t.Context(), mcp.Request{Method: "echo"}); err != nil {
		t.Errorf("a request: %v", err)
	}
}

func TestAFrameThatStopsHalfwayOnAStreamIsRefusedInTime(t *testing.T) {
	var counters mcp.Counters
	p, streams := streamsOf(t, mcp.Config{FrameTimeout: 100 * time.Millisecond, Counters: &counters})
	frame, err := mcp.AppendFrame(nil, mcp.Version2, mcp.CommandPublish, make([]byte, 100))
	if err != nil {
		t.Fatal(err)
	}
	c, err := streams.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := c.Write(frame[:50]); err != nil {
		t.Fatal(err)
	}
	if err := <-p.clientErr; !mcp.IsCode(err, mcp.CodeBadFrame) {
		t.Errorf("the client is told: %v", err)
	}
	if d := time.Since(begun); d > mcp.DefaultFrameTimeout/2 || counters.FrameTimeouts.Load() != 1 {
		t.Errorf("after %v, %d counted", d, counters.FrameTimeouts.Load())
	}
}

// single is a receiver that notices when it is called twice at once.
type single struct {
	*receiver
	inside    atomic.Bool
	entered   chan struct{}
	disturbed atomic.Bool
}

func (s *single) Open(ctx context.Context, p mcp.Peer) error {
	if s.inside.Load() {
		s.disturbed.Store(true)
	}
	return s.receiver.Open(ctx, p)
}

func (s *single) Publish(ctx context.Context, p *mcp.Publish) (mcp.Commit, error) {
	s.inside.Store(true)
	defer s.inside.Store(false)
	s.entered <- struct{}{}
	return s.receiver.Publish(ctx, p)
}

func TestAPeerThatIntroducesItselfLateDoesSoBetweenItsRecords(t *testing.T) {
	l, d := quicEnds(t, 0)
	client, err := d.Dial(t.Context(), mcp.NewStreamFramer(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := &single{receiver: newReceiver(), entered: make(chan struct{}, 2)}
	h.block = make(chan struct{}, 1)
	s := mcp.NewSession(server, mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 2, Anonymous: "press-7"}, h)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()

	one := record.Record{Device: "press-7", Stream: "s", Payload: []byte("x")}
	publish := mcp.AppendPublish(nil, "main", 0, nil, mcp.AppendRecord(nil, one.Append(nil)))
	beat, record := frameOf(t, mcp.CommandHeartbeat, nil), frameOf(t, mcp.CommandPublish, publish)
	hello := mcp.Hello{Sender: "press-7", Epoch: 1, Versions: []uint8{mcp.Version2}}
	if err := client.Write(beat); err != nil {
		t.Fatal(err)
	}
	<-s.Opened()
	beside, err := client.Info().Streams.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := beside.Write(record); err != nil {
		t.Fatal(err)
	}
	<-h.entered
	if err := client.Write(frameOf(t, mcp.CommandHello, hello.Append(nil))); err != nil {
		t.Fatal(err)
	}
	<-time.After(50 * time.Millisecond) // for HELLO to arrive
	close(h.block)
	until(t, "it is never introduced", func() bool { return !s.Peer().Anonymous })
	if h.disturbed.Load() {
		t.Error("the handler was called twice at once")
	}
}

func frameOf(t *testing.T, c mcp.Command, payload []byte) []byte {
	t.Helper()
	frame, err := mcp.AppendFrame(nil, mcp.Version2, c, payload)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}
