package mcp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/quic"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// BenchmarkPublishingSecurely is BenchmarkPublishing on one connection with TLS
// 1.3: over TCP beside crypto/tls with the frame codec, and over QUIC beside a
// stream of quic-go with it.
func BenchmarkPublishingSecurely(b *testing.B) {
	framers := func() transport.Framer { return mcp.NewStreamFramer(0, 0) }
	b.Run("TLS", func(b *testing.B) {
		ca := transporttest.NewCA(b)
		l, err := tcp.Listen(b.Context(), "127.0.0.1:0", framers, ca.Server())
		if err != nil {
			b.Fatal(err)
		}
		d := tcp.NewDialer(strings.TrimPrefix(l.Endpoint(), "tcp "), ca.Client())
		near, far := bareTLS(b, ca)
		besideFloor(b, publisherOn(b, l, d), newPipe(b, near, far))
	})
	b.Run("QUIC", func(b *testing.B) {
		ca := transporttest.NewCA(b)
		l, err := quic.Listen(b.Context(), "127.0.0.1:0", framers, ca.Server())
		if err != nil {
			b.Fatal(err)
		}
		d := quic.NewDialer(strings.TrimPrefix(l.Endpoint(), "quic "), ca.Client())
		near, far := bareQUIC(b, ca)
		besideFloor(b, publisherOn(b, l, d), newPipe(b, near, far))
	})
}

// besideFloor has the two take turns, and compares medians.
func besideFloor(b *testing.B, p *mcp.Publisher, floor *pipe) {
	b.Helper()
	const records = 128 << 10 // a turn
	raw := sample()
	var session, bare []float64
	for b.Loop() {
		for range 5 {
			session = append(session, perSecond(records, func() { publishAllOf(b, []*mcp.Publisher{p}, raw, records) }))
			bare = append(bare, perSecond(records, func() { sendAllOf(b, []*pipe{floor}, raw, records) }))
		}
	}
	slices.Sort(session)
	slices.Sort(bare)
	b.ReportMetric(session[len(session)/2], "records/s")
	b.ReportMetric(bare[len(bare)/2], "floor/s")
	b.ReportMetric(session[len(session)/2]/bare[len(bare)/2], "x-floor")
	b.ReportMetric(0, "ns/op") // means nothing here
}

// publisherOn connects one, and closes the Listener after the benchmark.
func publisherOn(b *testing.B, l transport.Listener, d transport.Dialer) *mcp.Publisher {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		c, err := l.Accept(ctx)
		if err != nil {
			b.Error(err)
			return
		}
		cfg := mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 1}
		_ = mcp.NewSession(c, cfg, new(sink)).Run(ctx)
	})
	p, err := mcp.NewPublisher(mcp.PublisherConfig{Session: mcp.Config{Name: "press-7"}, Outbox: mcp.OutboxConfig{MaxRecords: 1024}, Dialer: d})
	if err != nil {
		b.Fatal(err)
	}
	running.Go(func() { _ = p.Run(ctx) })
	b.Cleanup(func() {
		cancel()
		running.Wait()
		_ = l.Close()
	})
	publishAllOf(b, []*mcp.Publisher{p}, sample(), 1)
	return p
}

// newPipe counts the frames that come out at far.
func newPipe(b *testing.B, near io.Writer, far io.Reader) *pipe {
	b.Helper()
	p := &pipe{out: bufio.NewWriterSize(near, 64<<10), arrived: make(chan error), expect: make(chan int)}
	go func() {
		in := bufio.NewReaderSize(far, 64<<10)
		for count := range p.expect {
			p.arrived <- takeFrames(in, count)
		}
	}()
	b.Cleanup(func() { close(p.expect) })
	return p
}

func bareTLS(b *testing.B, ca *transporttest.CA) (near io.Writer, far io.Reader) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = out.Close()
		_ = in.Close()
	})
	return tls.Client(out, ca.Client()()), tls.Server(in, ca.Server()())
}

func bareQUIC(b *testing.B, ca *transporttest.CA) (near io.Writer, far io.Reader) {
	b.Helper()
	config := func(given transport.TLS) *tls.Config {
		c := given().Clone()
		c.NextProtos = []string{quic.ALPN}
		return c
	}
	l, err := quicgo.ListenAddr("127.0.0.1:0", config(ca.Server()), nil)
	if err != nil {
		b.Fatal(err)
	}
	dialed, err := quicgo.DialAddr(b.Context(), l.Addr().String(), config(ca.Client()), nil)
	if err != nil {
		b.Fatal(err)
	}
	accepted, err := l.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = dialed.CloseWithError(0, "")
		_ = accepted.CloseWithError(0, "")
		_ = l.Close()
	})
	out, err := dialed.OpenUniStream()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := out.Write([]byte{0}); err != nil { // so that it is there
		b.Fatal(err)
	}
	in, err := accepted.AcceptUniStream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(in, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	return out, in
}
