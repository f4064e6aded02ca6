package udp

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// Large datagrams from a socket to an accepted Conn, as many as come: what a busy
// device sends. What the kernel drops is not counted.
func BenchmarkReadingDatagrams(b *testing.B) {
	conn, peer := openAccepted(b, Config{})
	defer conn.Close()
	defer peer.Close()
	flooding := flood(peer)
	b.SetBytes(defaultDatagram - secureOverhead)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Read(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
	peer.Close()
	<-flooding
}

// The yardstick: the same with the sockets themselves.
func BenchmarkReadingDatagramsRaw(b *testing.B) {
	l, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	_ = l.SetReadBuffer(receiveBuffer)
	peer, err := net.Dial("udp", l.LocalAddr().String())
	if err != nil {
		b.Fatal(err)
	}
	flooding := flood(peer)
	buf := make([]byte, defaultDatagram)
	b.SetBytes(defaultDatagram - secureOverhead)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := l.ReadFromUDPAddrPort(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
	peer.Close()
	<-flooding
}

// The same with DTLS between two Conns.
func BenchmarkReadingDatagramsDTLS(b *testing.B) {
	ca := transporttest.NewCA(b)
	dialed, accepted := secureEnds(b, Config{TLS: ca.Server()}, Config{TLS: ca.Client()})
	defer accepted.Close()
	flooding := flood(far{dialed})
	b.SetBytes(int64(dialed.Info().MaxMessage))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := accepted.Read(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
	dialed.Close()
	<-flooding
}

func flood(peer io.Writer) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, defaultDatagram-secureOverhead)
		for {
			if _, err := peer.Write(p); err != nil {
				return
			}
		}
	}()
	return done
}

// A request and its answer between two Conns, with the deadlines of a poll.
func BenchmarkRoundTrip(b *testing.B) {
	l, d := listenAndDial(b, Config{}, Config{})
	defer l.Close()
	dialed := dial(b, d)
	defer dialed.Close()
	if err := dialed.Write([]byte("first")); err != nil {
		b.Fatal(err)
	}
	roundTrips(b, dialed, accept(b, l))
}

func BenchmarkRoundTripDTLS(b *testing.B) {
	ca := transporttest.NewCA(b)
	dialed, accepted := secureEnds(b, Config{TLS: ca.Server()}, Config{TLS: ca.Client()})
	defer dialed.Close()
	roundTrips(b, dialed, accepted)
}

func roundTrips(b *testing.B, dialed, accepted transport.Conn) {
	b.Helper()
	defer accepted.Close()
	go func() {
		for {
			msg, err := accepted.Read()
			if err != nil || accepted.Write(msg) != nil {
				return
			}
		}
	}()
	request := make([]byte, 268)
	b.ReportAllocs()
	for b.Loop() {
		deadline := time.Now().Add(time.Second)
		_ = dialed.SetReadDeadline(deadline)
		_ = dialed.SetWriteDeadline(deadline)
		if err := dialed.Discard(); err != nil {
			b.Fatal(err)
		}
		if err := dialed.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := dialed.Read(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRoundTripRaw(b *testing.B) {
	l, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := l.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = l.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	to := netip.MustParseAddrPort(l.LocalAddr().String())
	request, buf := make([]byte, 268), make([]byte, 2000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.WriteToUDPAddrPort(request, to); err != nil {
			b.Fatal(err)
		}
		if _, _, err := c.ReadFromUDPAddrPort(buf); err != nil {
			b.Fatal(err)
		}
	}
}
