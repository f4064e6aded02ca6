package mcp_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// sink reads each record and is content.
type sink struct {
	mcp.NoHandler
	record record.Record
}

func (s *sink) Publish(_ context.Context, p *mcp.Publish) (mcp.Commit, error) {
	for _, raw := range p.Records() {
		if err := s.record.Unmarshal(raw); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// sample is a record of 256 bytes as its protobuf.
func sample() []byte {
	r := record.Record{Device: "press-7", Stream: "raw", Time: time.Now()}
	for len(r.Append(nil)) < 256 {
		r.Payload = append(r.Payload, 'x')
	}
	return r.Append(nil)
}

// startPublishers makes a number of publishers, each with a session over loopback
// TCP to a receiver of its own. What a store adds is left out.
func startPublishers(b *testing.B, n int) []*mcp.Publisher {
	b.Helper()
	l, err := tcp.Listen(b.Context(), "127.0.0.1:0", func() transport.Framer { return mcp.NewStreamFramer(0, 0) }, nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			cfg := mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 1}
			running.Go(func() { _ = mcp.NewSession(c, cfg, new(sink)).Run(ctx) })
		}
	})
	b.Cleanup(func() {
		cancel()
		running.Wait()
		_ = l.Close()
	})
	dialer := tcp.NewDialer(l.Endpoint()[len("tcp "):], nil)
	publishers := make([]*mcp.Publisher, n)
	for i := range publishers {
		p, err := mcp.NewPublisher(mcp.PublisherConfig{Session: mcp.Config{Name: "press-" + strconv.Itoa(i)}, Outbox: mcp.OutboxConfig{MaxRecords: 1024}, Dialer: dialer})
		if err != nil {
			b.Fatal(err)
		}
		publishers[i] = p
		running.Go(func() { _ = p.Run(ctx) })
		if err := p.Publish(b.Context(), record.Record{Device: "press-7", Stream: "raw"}); err != nil {
			b.Fatal(err)
		}
		if err := p.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	return publishers
}

// BenchmarkSessions64 measures both ends of 64 sessions.
func BenchmarkSessions64(b *testing.B) {
	publishers := startPublishers(b, 64)
	raw := sample()
	b.ResetTimer()
	publishAllOf(b, publishers, raw, b.N/64+1)
}

func publishAllOf(b *testing.B, publishers []*mcp.Publisher, raw []byte, each int) {
	b.Helper()
	var publishing sync.WaitGroup
	for _, p := range publishers {
		publishing.Go(func() {
			for range each {
				if err := p.PublishRaw(b.Context(), raw); err != nil {
					b.Error(err)
					return
				}
			}
			if err := p.Flush(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
	publishing.Wait()
}

// BenchmarkPublishing measures records of 256 bytes over sessions on loopback
// TCP, with windows and acknowledgements, beside the floor: as many connections
// that carry each record in a frame of its own through buffers of 64 KiB, with
// checksums made and checked. The two take turns, and medians are compared.
func BenchmarkPublishing(b *testing.B) {
	for _, connections := range []int{1, 64} {
		b.Run(fmt.Sprintf("%dConnections", connections), func(b *testing.B) {
			const records = 256 << 10 // a turn
			publishers, raw := startPublishers(b, connections), sample()
			pipes := startFloor(b, connections)
			var sessions, floor []float64
			for b.Loop() {
				for range 5 {
					sessions = append(sessions, perSecond(records, func() {
						publishAllOf(b, publishers, raw, records/connections)
					}))
					floor = append(floor, perSecond(records, func() {
						sendAllOf(b, pipes, raw, records/connections)
					}))
				}
			}
			slices.Sort(sessions)
			slices.Sort(floor)
			b.ReportMetric(sessions[len(sessions)/2], "records/s")
			b.ReportMetric(floor[len(floor)/2], "floor/s")
			b.ReportMetric(sessions[len(sessions)/2]/floor[len(floor)/2], "x-floor")
			b.ReportMetric(0, "ns/op") // means nothing here
		})
	}
}

func perSecond(n int, f func()) float64 {
	start := time.Now()
	f()
	return float64(n) / time.Since(start).Seconds()
}

// pipe is a connection whose other end counts the frames that are right.
type pipe struct {
	out     *bufio.Writer
	arrived chan error // one for each asked for
	expect  chan int
}

func startFloor(b *testing.B, n int) []*pipe {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	pipes := make([]*pipe, n)
	for i := range pipes {
		near, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		p := &pipe{out: bufio.NewWriterSize(near, 64<<10), arrived: make(chan error), expect: make(chan int)}
		pipes[i] = p
		go func() {
			in := bufio.NewReaderSize(far, 64<<10)
			for count := range p.expect {
				p.arrived <- takeFrames(in, count)
			}
		}()
		b.Cleanup(func() {
			close(p.expect)
			_ = near.Close()
			_ = far.Close()
		})
	}
	return pipes
}

func takeFrames(in *bufio.Reader, count int) error {
	for range count {
		header, err := in.Peek(8)
		if err != nil {
			return err
		}
		size := 8 + int(binary.BigEndian.Uint32(header[4:])) + 4
		frame, err := in.Peek(size)
		if err != nil {
			return err
		}
		if _, err := mcp.ParseFrame(frame); err != nil {
			return err
		}
		_, _ = in.Discard(size)
	}
	return nil
}

func sendAllOf(b *testing.B, pipes []*pipe, raw []byte, each int) {
	b.Helper()
	var sending sync.WaitGroup
	for _, p := range pipes {
		sending.Go(func() {
			p.expect <- each
			var frame []byte
			for range each {
				var err error
				if frame, err = mcp.AppendFrame(frame[:0], mcp.Version2, mcp.CommandPublish, raw); err != nil {
					b.Error(err)
				}
				if _, err := p.out.Write(frame); err != nil {
					b.Error(err)
				}
			}
			if err := p.out.Flush(); err != nil {
				b.Error(err)
			}
			if err := <-p.arrived; err != nil {
				b.Error(err)
			}
		})
	}
	sending.Wait()
}
