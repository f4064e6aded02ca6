package mcp_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// BenchmarkUDP measures records of 256 bytes, published over one session on
// loopback UDP and decoded, with acknowledgements and window, beside the floor:
// frames of 268 bytes, as many a datagram as fit, a system call for each, read
// and thrown away. The two take turns; each pair gives a ratio, whose median
// counts, because a busy machine slows both.
func BenchmarkUDP(b *testing.B) {
	var sessions, floors, ratios []float64
	for b.Loop() {
		for range 5 {
			floor, session := udpFloor(b, turn), udpSession(b, turn)
			floors = append(floors, floor)
			sessions = append(sessions, session)
			ratios = append(ratios, session/floor)
		}
	}
	for unit, values := range map[string][]float64{"records/s": sessions, "floor/s": floors, "x-floor": ratios} {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], unit)
	}
	b.ReportMetric(0, "ns/op") // means nothing here
}

// turn is long enough that the session's window has grown, which begins small.
const turn = time.Second

const benchDatagram = 1472 // what an Ethernet frame carries

// udpSession returns how many records a second are acknowledged.
func udpSession(b *testing.B, d time.Duration) float64 {
	gate := mcp.NewGate()
	l, err := udp.Listen(b.Context(), "127.0.0.1:0", udp.Config{MaxDatagram: benchDatagram, Gate: gate.Check})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept(ctx)
		if err != nil {
			b.Error(err)
			return
		}
		_ = mcp.NewSession(c, mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 1}, new(sink)).Run(ctx)
	}()
	p, err := mcp.NewPublisher(mcp.PublisherConfig{
		Session: mcp.Config{Name: "press-7"},
		Dialer:  udp.NewDialer(strings.TrimPrefix(l.Endpoint(), "udp "), udp.Config{MaxDatagram: benchDatagram}),
	})
	if err != nil {
		b.Fatal(err)
	}
	running := make(chan struct{})
	go func() { defer close(running); _ = p.Run(ctx) }()
	r := record.Record{Device: "press-7", Stream: "raw", Payload: make([]byte, 256), Time: time.Now()}
	raw := r.Append(nil)
	start := time.Now()
	for time.Since(start) < d {
		for range 64 {
			if err := p.PublishRaw(ctx, raw); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := p.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	rate := float64(p.Stats().Acknowledged) / time.Since(start).Seconds()
	cancel()
	<-running
	<-served
	return rate
}

// udpFloor returns how many frames a second arrive.
func udpFloor(b *testing.B, d time.Duration) float64 {
	l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		b.Fatal(err)
	}
	_ = l.SetReadBuffer(4 << 20)
	peer, err := net.DialUDP("udp", nil, l.LocalAddr().(*net.UDPAddr))
	if err != nil {
		b.Fatal(err)
	}
	defer peer.Close()
	const frames = benchDatagram / 268
	var arrived atomic.Int64
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		buf := make([]byte, benchDatagram)
		for {
			if _, _, err := l.ReadFromUDPAddrPort(buf); err != nil {
				return
			}
			arrived.Add(frames)
		}
	}()
	datagram := make([]byte, frames*268)
	start := time.Now()
	for time.Since(start) < d {
		for range 64 {
			_, _ = peer.Write(datagram)
		}
	}
	rate := float64(arrived.Load()) / time.Since(start).Seconds()
	l.Close()
	<-reading
	return rate
}
