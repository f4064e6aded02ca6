package serial_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pty"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/serial"
)

// flipEvery is how many bytes pass between two flipped bits, on average.
const flipEvery = 10_000

// noisyLine is two pseudo-terminals whose masters are joined by a wire that
// flips bits. flipped cuts the wire and returns how many.
func noisyLine(t *testing.T) (agent, device *serial.Dialer, flipped func() int) {
	t.Helper()
	a, pathA, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	b, pathB, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	var wires sync.WaitGroup
	var flips [2]int
	wires.Go(func() { flips[0] = wire(a, b, rand.New(rand.NewPCG(1, 2))) })
	wires.Go(func() { flips[1] = wire(b, a, rand.New(rand.NewPCG(3, 4))) })
	cut := func() int {
		a.Close()
		b.Close()
		wires.Wait()
		return flips[0] + flips[1]
	}
	t.Cleanup(func() { cut() })
	config := serial.Config{Baud: 4000000, DataBits: 8, Parity: "none", StopBits: 1}
	return serial.NewDialer(pathA, config), serial.NewDialer(pathB, config), cut
}

// wire carries bytes until an end is closed, and returns how many it has damaged.
func wire(to, from *os.File, dice *rand.Rand) (flips int) {
	buf := make([]byte, 4096)
	next := dice.IntN(2 * flipEvery)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return flips
		}
		for ; next < n; next += 1 + dice.IntN(2*flipEvery) {
			buf[next] ^= 1 << dice.IntN(8)
			flips++
		}
		next -= n
		if _, err := to.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
			return flips
		}
		if err != nil { // EIO: nobody has that end open
			<-time.After(time.Millisecond)
		}
	}
}

// store keeps what arrives and how far each channel has come, as the agent's
// does.
type store struct {
	mcp.NoHandler
	mu      sync.Mutex
	safe    map[string]uint64
	records []string
}

func (s *store) Channel(name string) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.safe[name], nil
}

func (s *store) Publish(_ context.Context, p *mcp.Publish) (mcp.Commit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, raw := range p.Records() {
		var r record.Record
		if err := r.Unmarshal(raw); err != nil {
			return nil, err
		}
		s.records = append(s.records, string(r.Payload[:6]))
	}
	s.safe[string(p.Channel)] = p.Last()
	return nil, nil
}

func TestThroughFlippedBitsEachAcknowledgedRecordArrivesOnce(t *testing.T) {
	const count = 1500
	agent, device, flipped := noisyLine(t)
	publisher, err := mcp.NewPublisher(mcp.PublisherConfig{
		Session:  mcp.Config{Role: mcp.Server, Name: "press-7"},
		Dialer:   device,
		Framer:   func() transport.Framer { return mcp.NewSerialFramer(0, 0) },
		RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = publisher.Run(ctx) })
	kept := &store{safe: make(map[string]uint64)}
	running.Go(func() {
		for ctx.Err() == nil {
			conn, err := agent.Dial(ctx, mcp.NewSerialFramer(0, 0))
			if err != nil {
				<-time.After(time.Millisecond)
				continue
			}
			_ = mcp.NewSession(conn, mcp.Config{Role: mcp.Client, Name: "gw-01", Epoch: 7}, kept).Run(ctx)
			conn.Close()
		}
	})

	var sent []string
	filling := make([]byte, 94)
	for i := range count {
		sent = append(sent, fmt.Sprintf("%06d", i))
		r := record.Record{Device: "press-7", Stream: "state", Payload: append([]byte(sent[i]), filling...)}
		if err := publisher.Publish(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := publisher.Flush(ctx); err != nil {
		t.Fatalf("%v; %+v", err, publisher.Stats())
	}
	stop()
	running.Wait()
	if !slices.Equal(kept.records, sent) {
		t.Errorf("%d records arrived, of %d, and not each once in its order", len(kept.records), count)
	}
	if n := flipped(); n < count*100/flipEvery/2 {
		t.Errorf("only %d bits were flipped", n)
	} else {
		t.Logf("%d bits were flipped", n)
	}
}
