package quic

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// frame is a record of 256 bytes in an MCP frame of version 2.
func frame() []byte { return transporttest.Frame(make([]byte, 268-6)) }

// Many frames a write: what a busy device or the agent below sends.
func BenchmarkReadingFrames(b *testing.B) {
	p := connected(b)
	go flood(p.dialed.Write)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.accepted.Read(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}

func BenchmarkReadingFramesOfAStream(b *testing.B) {
	p := connected(b)
	out, in := openStream(b, p.dialed, p.accepted, "x")
	_ = out.SetWriteDeadline(time.Time{})
	_ = in.SetReadDeadline(time.Time{})
	go flood(out.Write)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := in.Read(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}

// The yardstick: the same frames on a stream of quic-go as it comes, through a
// bufio.Reader of 64 KiB.
func BenchmarkReadingFramesOfQuicGo(b *testing.B) {
	r := bufio.NewReaderSize(bareStream(b), 64<<10)
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

// bareStream comes with frames without end.
func bareStream(b *testing.B) io.Reader {
	b.Helper()
	ca := transporttest.NewCA(b)
	config := func(given transport.TLS) *tls.Config {
		c := given().Clone()
		c.NextProtos = []string{ALPN}
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
	out, err := dialed.OpenStream()
	if err != nil {
		b.Fatal(err)
	}
	go flood(func(p []byte) error { _, err := out.Write(p); return err })
	in, err := accepted.AcceptStream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return in
}

func flood(write func([]byte) error) {
	piece := bytes.Repeat(frame(), 256)
	for write(piece) == nil {
	}
}

// A request and its answer, with the deadlines of one.
func BenchmarkRoundTrip(b *testing.B) {
	p := connected(b)
	go func() {
		_ = p.accepted.SetReadDeadline(time.Time{})
		for {
			msg, err := p.accepted.Read()
			if err != nil || p.accepted.Write(msg) != nil {
				return
			}
		}
	}()
	request := frame()
	b.ReportAllocs()
	for b.Loop() {
		deadline := time.Now().Add(time.Second)
		_ = p.dialed.SetReadDeadline(deadline)
		_ = p.dialed.SetWriteDeadline(deadline)
		if err := p.dialed.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := p.dialed.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
