package modbus_test

import (
	"context"
	"encoding/binary"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// parrot is a Conn to a Modbus TCP slave that answers each read at once, with
// zeros.
type parrot struct {
	transport.Conn // nil: what is missing here is not called
	replies        chan []byte
	frame          [260]byte
}

func (c *parrot) Dial(context.Context, transport.Framer) (transport.Conn, error) {
	if c.replies == nil {
		c.replies = make(chan []byte, 1)
	}
	return c, nil
}
func (c *parrot) Endpoint() string                 { return "parrot" }
func (c *parrot) Info() transport.Info             { return transport.Info{} }
func (c *parrot) SetReadDeadline(time.Time) error  { return nil }
func (c *parrot) SetWriteDeadline(time.Time) error { return nil }
func (c *parrot) Close() error                     { close(c.replies); return nil }

func (c *parrot) Write(msg []byte) error {
	c.replies <- zeros(c.frame[:0], msg)
	return nil
}

// zeros appends the answer to a read of registers to b.
func zeros(b, asked []byte) []byte {
	n := 2 * int(binary.BigEndian.Uint16(asked[10:]))
	b = append(b, asked[:8]...)
	binary.BigEndian.PutUint16(b[4:], uint16(3+n))
	return append(append(b, byte(n)), make([]byte, n)...)
}

func (c *parrot) Read() ([]byte, error) {
	msg, ok := <-c.replies
	if !ok {
		return nil, net.ErrClosed
	}
	return msg, nil
}

// blackHole takes everything.
type blackHole struct{}

func (blackHole) Offer(record.Record) bool                     { return true }
func (blackHole) Deliver(context.Context, record.Record) error { return nil }

func fourPoints() []modbus.PointConfig {
	return ats("holding:0 float32", "holding:2 uint16", "holding:3 int16", "holding:4 uint32")
}

func opening(t testing.TB, d transport.Dialer, transactions int) *modbus.Link {
	t.Helper()
	link, err := modbus.NewLink(d, modbus.LinkConfig{Framing: modbus.FramingTCP, Transactions: transactions}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = link.Close() })
	return link
}

func polling(t testing.TB, link *modbus.Link) *modbus.Poll {
	t.Helper()
	poll, err := link.Poll(modbus.PollConfig{ID: "d", Name: "p", Device: device(1), Points: fourPoints()}, blackHole{}, clock)
	if err != nil {
		t.Fatal(err)
	}
	return poll
}

func roundOf(ctx context.Context, b *testing.B, poll *modbus.Poll) {
	poll.Begin(time.Time{})
	turn := scheduler.Turn{Timeout: time.Second}
	_, err := poll.Step(ctx, &turn)
	if err != nil {
		b.Fatal(err)
	}
	poll.End(nil)
}

// BenchmarkRound is what a poll of four points costs beside its connection.
func BenchmarkRound(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for name, transactions := range map[string]int{"OneAtATime": 1, "Pipelined": 8} {
		b.Run(name, func(b *testing.B) {
			poll := polling(b, opening(b, new(parrot), transactions))
			b.ReportAllocs()
			for b.Loop() {
				roundOf(ctx, b, poll)
			}
		})
	}
	b.Run("OverTCP", func(b *testing.B) {
		poll := polling(b, opening(b, tcp.NewDialer(zeroServer(b), nil), 1))
		b.ReportAllocs()
		for b.Loop() {
			roundOf(ctx, b, poll)
		}
	})
}

// BenchmarkDevice is the memory of a link with one device and one poll of four
// points, once it has been polled, beside its connection.
func BenchmarkDevice(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	conns := make([]*parrot, 0, b.N)
	for range cap(conns) {
		c := new(parrot)
		_, _ = c.Dial(ctx, nil)
		conns = append(conns, c)
	}
	polls := make([]*modbus.Poll, 0, b.N)
	before := heap()
	for _, c := range conns {
		link, err := modbus.NewLink(c, modbus.LinkConfig{Framing: modbus.FramingTCP}, quiet)
		if err != nil {
			b.Fatal(err)
		}
		if err := link.Open(ctx); err != nil {
			b.Fatal(err)
		}
		poll := polling(b, link)
		roundOf(ctx, b, poll)
		polls = append(polls, poll)
	}
	b.ReportMetric(float64(heap()-before)/float64(b.N), "B/device")
	runtime.KeepAlive(polls)
	runtime.KeepAlive(conns)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// zeroServer answers each read with zeros, on TCP.
func zeroServer(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				var asked [12]byte
				var reply [260]byte
				for {
					if n, err := conn.Read(asked[:]); err != nil || n < len(asked) {
						return
					}
					if _, err := conn.Write(zeros(reply[:0], asked[:])); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}
