package mcp_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	quicproxy "github.com/quic-go/quic-go/integrationtests/tools/proxy"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/quic"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

const patience = 20 * time.Second

// quicEnds are a Listener and a Dialer that reaches it, perhaps through a network
// that loses a share of the packets.
func quicEnds(t testing.TB, loss float64) (*quic.Listener, *quic.Dialer) {
	t.Helper()
	ca := transporttest.NewCA(t)
	l, err := quic.Listen(t.Context(), "127.0.0.1:0", func() transport.Framer { return mcp.NewStreamFramer(0, 0) }, ca.MutualServer())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	address := strings.TrimPrefix(l.Endpoint(), "quic ")
	if loss > 0 {
		address = throughLoss(t, address, loss)
	}
	return l, quic.NewDialer(address, ca.Client("press-7"))
}

func throughLoss(t testing.TB, server string, share float64) string {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	from, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &quicproxy.Proxy{
		Conn: from, ServerAddr: to,
		DropPacket: func(quicproxy.Direction, net.Addr, net.Addr, []byte) bool { return rand.Float64() < share },
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Close()
		_ = from.Close()
	})
	return from.LocalAddr().String()
}

// changed is a Conn whose streams a test has changed.
type changed struct {
	transport.Conn
	streams transport.Streams
}

func (c changed) Info() transport.Info {
	info := c.Conn.Info()
	info.Streams = c.streams
	return info
}

// overQUIC runs a session of each end; change, if there is one, is between the
// client and its streams.
func overQUIC(t *testing.T, clientCfg, serverCfg mcp.Config, sh mcp.Handler, change func(transport.Streams) transport.Streams) *pair {
	t.Helper()
	l, d := quicEnds(t, 0)
	a, err := d.Dial(t.Context(), mcp.NewStreamFramer(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		a = changed{a, change(a.Info().Streams)}
	}
	b, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	clientCfg.Role, clientCfg.Name, clientCfg.Epoch = mcp.Client, "press-7", 1
	serverCfg.Role, serverCfg.Name, serverCfg.Epoch = mcp.Server, "gw-01", 2
	p := &pair{
		client: mcp.NewSession(a, clientCfg, newReceiver()), server: mcp.NewSession(b, serverCfg, sh),
		clientErr: make(chan error, 1), serverErr: make(chan error, 1),
	}
	var cctx, sctx context.Context
	cctx, p.stopClient = context.WithCancel(context.Background())
	sctx, p.stopServer = context.WithCancel(context.Background())
	go func() { p.clientErr <- p.client.Run(cctx) }()
	go func() { p.serverErr <- p.server.Run(sctx) }()
	t.Cleanup(p.stop)
	return p
}

func outboxes(t testing.TB, names ...string) (all []*mcp.Outbox) {
	t.Helper()
	for _, name := range names {
		o, err := mcp.NewOutbox(mcp.OutboxConfig{Channel: name})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// say publishes the numbers from and to and those between, each under the name.
func say(t testing.TB, o *mcp.Outbox, name string, from, to int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n := from; n <= to; n++ {
		if err := o.Publish(ctx, record.Record{Device: "press-7", Stream: "s", Payload: fmt.Appendf(nil, "%s %d", name, n)}); err != nil {
			t.Fatal(err)
		}
	}
}

func flushed(t testing.TB, o *mcp.Outbox) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := o.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// expectAll checks that what was said under the name has arrived once, in order.
func expectAll(t testing.TB, r *receiver, name string, to int) {
	t.Helper()
	var got, want []string
	for _, payload := range r.payloads() {
		if strings.HasPrefix(payload, name+" ") {
			got = append(got, payload)
		}
	}
	for n := range to {
		want = append(want, fmt.Sprintf("%s %d", name, n+1))
	}
	if !slices.Equal(got, want) {
		t.Errorf("of channel %s, %d records: got %d, %.200q", name, to, len(got), got)
	}
}

func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for giveUp := time.Now().Add(patience); !condition(); <-time.After(time.Millisecond) {
		if time.Now().After(giveUp) {
			t.Fatal(what)
		}
	}
}

// counted counts streams and datagrams.
type counted struct {
	transport.Streams
	opened    atomic.Int32
	datagrams atomic.Int32
}

func (c *counted) Open(ctx context.Context) (transport.Conn, error) {
	c.opened.Add(1)
	return c.Streams.Open(ctx)
}

func (c *counted) Datagrams() transport.Conn {
	return countedDatagrams{c.Streams.Datagrams(), &c.datagrams}
}

type countedDatagrams struct {
	transport.Conn
	written *atomic.Int32
}

func (c countedDatagrams) Write(msg []byte) error {
	c.written.Add(1)
	return c.Conn.Write(msg)
}

func TestEachChannelHasAStreamAndKeepsItsOrder(t *testing.T) {
	const count = 500
	names := []string{"a", "b", "c"}
	toServer, toClient, r := outboxes(t, names...), outboxes(t, "back"), newReceiver()
	var streams counted
	p := overQUIC(t, mcp.Config{Outboxes: toServer}, mcp.Config{Outboxes: toClient}, r,
		func(s transport.Streams) transport.Streams {
			streams.Streams = s
			return &streams
		})
	for n := range count {
		for i, o := range toServer {
			say(t, o, names[i], n+1, n+1)
		}
	}
	say(t, toClient[0], "back", 1, count)
	for i, o := range toServer {
		flushed(t, o)
		expectAll(t, r, names[i], count)
	}
	flushed(t, toClient[0])
	if n := streams.opened.Load(); n != 3 {
		t.Errorf("%d streams were opened for three channels", n)
	}
	p.stopClient()
	if err := <-p.clientErr; err != nil {
		t.Error(err)
	}
	if err := <-p.serverErr; !mcp.IsCode(err, mcp.CodeGoingAway) {
		t.Errorf("the server: %v", err)
	}
}

// stuck is a network that keeps back what one channel says, until it is closed.
type stuck struct {
	transport.Streams
	channel string
	release chan struct{}
}

func (s stuck) Open(ctx context.Context) (transport.Conn, error) {
	c, err := s.Streams.Open(ctx)
	return stuckConn{c, s}, err
}

type stuckConn struct {
	transport.Conn
	network stuck
}

func (c stuckConn) Write(msg []byte) error {
	f, err := mcp.ParseFrame(msg)
	if err != nil { // several
		return c.Conn.Write(msg)
	}
	var p mcp.Publish
	if err := p.Unmarshal(f.Payload); err == nil && string(p.Channel) == c.network.channel {
		<-c.network.release
	}
	return c.Conn.Write(msg)
}

func TestAStreamThatIsStuckHoldsUpItsChannelOnly(t *testing.T) {
	all, r := outboxes(t, "stuck", "free"), newReceiver()
	network := stuck{channel: "stuck", release: make(chan struct{})}
	p := overQUIC(t, mcp.Config{Outboxes: all}, mcp.Config{}, r, func(s transport.Streams) transport.Streams {
		network.Streams = s
		return network
	})
	say(t, all[0], "stuck", 1, 1)
	say(t, all[1], "free", 1, 2000)
	flushed(t, all[1])
	expectAll(t, r, "free", 2000)
	if _, err := p.client.Call(t.Context(), mcp.Request{Method: "echo"}); err != nil {
		t.Errorf("a request: %v", err)
	}
	expectAll(t, r, "stuck", 0)
	close(network.release)
	flushed(t, all[0])
	expectAll(t, r, "stuck", 1)
}

func TestNoChannelTakesTheWholeWindow(t *testing.T) {
	all, r := outboxes(t, "greedy", "modest"), newReceiver()
	r.manual = true // nothing is acknowledged
	overQUIC(t, mcp.Config{Outboxes: all}, mcp.Config{WindowRecords: 64}, r, nil)
	say(t, all[0], "greedy", 1, 1000)
	until(t, "nothing comes", func() bool { return len(r.payloads()) >= 32 })
	say(t, all[1], "modest", 1, 10)
	until(t, "the other channel has no room", func() bool { return len(r.payloads()) >= 42 })
	expectAll(t, r, "greedy", 32)
	expectAll(t, r, "modest", 10)
}

func TestBestEffortGoesInDatagramsWhereItFits(t *testing.T) {
	o, err := mcp.NewOutbox(mcp.OutboxConfig{Channel: "live", BestEffort: true})
	if err != nil {
		t.Fatal(err)
	}
	var streams counted
	r := newReceiver()
	overQUIC(t, mcp.Config{Outboxes: []*mcp.Outbox{o}}, mcp.Config{}, r, func(s transport.Streams) transport.Streams {
		streams.Streams = s
		return &streams
	})
	say(t, o, "live", 1, 10)
	until(t, "they did not arrive", func() bool { return len(r.payloads()) == 10 })
	if streams.datagrams.Load() == 0 || streams.opened.Load() > 0 {
		t.Errorf("%d datagrams, %d streams", streams.datagrams.Load(), streams.opened.Load())
	}
	large := record.Record{Device: "press-7", Stream: "s", Payload: make([]byte, 2*quic.MaxDatagram)}
	if err := o.Publish(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	until(t, "the large one did not arrive", func() bool { return len(r.payloads()) == 11 })
	if streams.opened.Load() != 1 {
		t.Errorf("%d streams", streams.opened.Load())
	}
	if stats := o.Stats(); stats.Sent != 11 || stats.Dropped > 0 {
		t.Errorf("%+v", stats)
	}
}

// streamsOf opens a session with a client whose streams the test uses itself.
func streamsOf(t *testing.T, server mcp.Config) (*pair, transport.Streams) {
	t.Helper()
	var streams transport.Streams
	p := overQUIC(t, mcp.Config{}, server, newReceiver(), func(s transport.Streams) transport.Streams {
		streams = s
		return s
	})
	<-p.client.Opened()
	return p, streams
}

func TestOnlyRecordsAreSaidBesideTheFirstStream(t *testing.T) {
	heartbeat, err := mcp.AppendFrame(nil, mcp.Version2, mcp.CommandHeartbeat, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(transport.Streams) (transport.Conn, error){
		"a stream":   func(s transport.Streams) (transport.Conn, error) { return s.Open(t.Context()) },
		"a datagram": func(s transport.Streams) (transport.Conn, error) { return s.Datagrams(), nil },
	} {
		p, streams := streamsOf(t, mcp.Config{})
		c, err := open(streams)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Write(heartbeat); err != nil {
			t.Fatal(err)
		}
		if err := <-p.serverErr; !mcp.IsCode(err, mcp.CodeUnexpected) {
			t.Errorf("%s, the server: %v", name, err)
		}
		if err := <-p.clientErr; !mcp.IsCode(err, mcp.CodeUnexpected) {
			t.Errorf("%s, the client: %v", name, err)
		}
	}
}

func TestNoiseOnAStreamEndsTheSession(t *testing.T) {
	var counters mcp.Counters
	p, streams := streamsOf(t, mcp.Config{Counters: &counters})
	c, err := streams.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := <-p.clientErr; !mcp.IsCode(err, mcp.CodeBadFrame) {
		t.Errorf("the client is told: %v", err)
	}
	if counters.BadFrames.Load() != 1 {
		t.Errorf("%d bad frames", counters.BadFrames.Load())
	}
}

func TestUnfinishedFramesOnManyStreamsAreBounded(t *testing.T) {
	p, streams := streamsOf(t, mcp.Config{WindowBytes: 2 << 20})
	frame, err := mcp.AppendFrame(nil, mcp.Version2, mcp.CommandPublish, make([]byte, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		c, err := streams.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Write(frame[:100]); err != nil {
			t.Fatalf("stream %d: %v", n, err)
		}
	}
	if err := <-p.clientErr; !mcp.IsCode(err, mcp.CodeTooLarge) {
		t.Errorf("the client is told: %v", err)
	}
}

// plant accepts sessions over QUIC, all with one handler.
func plant(t testing.TB, l *quic.Listener, r mcp.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			cfg := mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 9}
			running.Go(func() { _ = mcp.NewSession(c, cfg, r).Run(ctx) })
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func TestAllAcknowledgedArriveOnceThroughLossAndBrokenConnections(t *testing.T) {
	const count, breaks = 300, 3
	l, d := quicEnds(t, 0.2)
	r := newReceiver()
	plant(t, l, r)
	names := []string{"a", "b", "c"}
	all := outboxes(t, names...)
	for n := range breaks {
		conn, err := d.Dial(t.Context(), mcp.NewStreamFramer(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		s := mcp.NewSession(conn, mcp.Config{Name: "press-7", Epoch: 5, Outboxes: all}, mcp.NoHandler{})
		ended := make(chan error, 1)
		go func() { ended <- s.Run(context.WithoutCancel(t.Context())) }()
		for i, o := range all {
			say(t, o, names[i], n*count+1, (n+1)*count)
		}
		if n < breaks-1 {
			until(t, "nothing arrives", func() bool { return all[0].Stats().Acknowledged > uint64(n*count) })
			s.Abandon()
		} else {
			for _, o := range all {
				flushed(t, o)
			}
			s.Close(&mcp.Error{Code: mcp.CodeGoingAway})
		}
		<-ended
	}
	for _, name := range names {
		expectAll(t, r, name, breaks*count)
	}
}

func TestAPublisherThatComesBackSaysHelloInTheFirstPacket(t *testing.T) {
	l, d := quicEnds(t, 0)
	r := newReceiver()
	plant(t, l, r)
	for n := range 2 {
		p, err := mcp.NewPublisher(mcp.PublisherConfig{Session: mcp.Config{Name: "press-7", Epoch: 5}, Dialer: d})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		say(t, p.Outbox, "main", n*10+1, n*10+10)
		flushed(t, p.Outbox)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	expectAll(t, r, "main", 20)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, peer := range r.opened {
		if peer.Confirmed == nil || !slices.Equal(peer.Names, []string{"press-7"}) {
			t.Errorf("the handler can't tell: %+v", peer)
		}
	}
}
