package mcp_test

import (
	"context"
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

// BenchmarkSessions64 measures both ends of 64 sessions over TCP, with records
// of 256 bytes; what a store adds is left out.
func BenchmarkSessions64(b *testing.B) {
	const sessions = 64
	l, err := tcp.Listen(b.Context(), "127.0.0.1:0", func() transport.Framer { return mcp.NewStreamFramer(0) }, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(b.Context())
	var running, publishing sync.WaitGroup
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
	dialer := tcp.NewDialer(l.Endpoint()[len("tcp "):], nil)
	publishers := make([]*mcp.Publisher, sessions)
	for i := range publishers {
		p, err := mcp.NewPublisher(mcp.PublisherConfig{Session: mcp.Config{Name: "press-" + strconv.Itoa(i)}, Dialer: dialer})
		if err != nil {
			b.Fatal(err)
		}
		publishers[i] = p
		running.Go(func() { _ = p.Run(ctx) })
	}
	r := record.Record{Device: "press-7", Stream: "raw", Payload: make([]byte, 256), Time: time.Now()}
	raw := r.Append(nil)
	b.ResetTimer()
	for _, p := range publishers {
		publishing.Go(func() {
			for range b.N/sessions + 1 {
				if err := p.PublishRaw(ctx, raw); err != nil {
					b.Error(err)
					return
				}
			}
			if err := p.Flush(ctx); err != nil {
				b.Error(err)
			}
		})
	}
	publishing.Wait()
	b.StopTimer()
	cancel()
	running.Wait()
}
