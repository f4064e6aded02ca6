package tcp

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// frame is a record of 256 bytes in an MCP frame of version 2.
func frame() []byte { return transporttest.Frame(make([]byte, 268-6)) }

// Many frames a write: what a busy device or the agent below sends.
func BenchmarkReadingFrames(b *testing.B) {
	conn, peer := connected(b)
	go flood(peer)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Read(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}

// The yardstick: the same frames through a bufio.Reader of 64 KiB, without
// deadlines, limits or classes of errors.
func BenchmarkReadingFramesWithBufio(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	peer, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer peer.Close()
	go flood(peer)
	readWithBufio(b, conn)
}

func readWithBufio(b *testing.B, conn net.Conn) {
	b.Helper()
	r := bufio.NewReaderSize(conn, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		header, err := r.Peek(6)
		if err != nil {
			b.Fatal(err)
		}
		size := 6 + int(binary.BigEndian.Uint32(header[2:]))
		if _, err := r.Peek(size); err != nil {
			b.Fatal(err)
		}
		_, _ = r.Discard(size)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}

// The same with TLS.
func BenchmarkReadingFramesWithTLS(b *testing.B) {
	conn, peer := connectedTLS(b)
	go flood(peer)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Read(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}

// The yardstick of that: crypto/tls and a bufio.Reader.
func BenchmarkReadingFramesWithCryptoTLSAndBufio(b *testing.B) {
	ca := transporttest.NewCA(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		flood(tls.Server(c, ca.Server()()))
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), ca.Client()())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	readWithBufio(b, conn)
}

func flood(peer net.Conn) {
	piece := bytes.Repeat(frame(), 256)
	for {
		if _, err := peer.Write(piece); err != nil {
			return
		}
	}
}

// A request and its answer, with the deadlines and the Discard of a poll.
func BenchmarkRoundTrip(b *testing.B) {
	conn, peer := connected(b)
	roundTrips(b, conn, peer)
}

func BenchmarkRoundTripWithTLS(b *testing.B) {
	conn, peer := connectedTLS(b)
	roundTrips(b, conn, peer)
}

func roundTrips(b *testing.B, conn transport.Conn, peer net.Conn) {
	b.Helper()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := peer.Read(buf)
			if err != nil {
				return
			}
			if _, err := peer.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	request := frame()
	b.ReportAllocs()
	for b.Loop() {
		deadline := time.Now().Add(time.Second)
		_ = conn.SetReadDeadline(deadline)
		_ = conn.SetWriteDeadline(deadline)
		if err := conn.Discard(); err != nil {
			b.Fatal(err)
		}
		if err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(); err != nil {
			b.Fatal(err)
		}
	}
}

func connectedTLS(b *testing.B) (transport.Conn, net.Conn) {
	b.Helper()
	ca := transporttest.NewCA(b)
	conn, peer := openDialedTLS(b, ca.Server(), ca.Client(), framers())
	b.Cleanup(func() {
		conn.Close()
		peer.Close()
	})
	return conn, peer
}

func connected(b *testing.B) (transport.Conn, net.Conn) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := NewDialer(l.Addr().String(), nil).Dial(b.Context(), framers())
	if err != nil {
		b.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.Close()
		peer.Close()
	})
	return c, peer
}
