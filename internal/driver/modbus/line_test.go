package modbus_test

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// clock is the bubble's.
func clock() record.Stamp { return record.Stamp{Time: time.Now(), Clock: record.ClockSynced} }

// sink keeps what polls make.
type sink struct {
	mu      sync.Mutex
	full    bool // it takes only what it is given time for
	records []record.Record
}

var _ modbus.Sink = (*sink)(nil)

func (s *sink) Offer(r record.Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return false
	}
	r.Points = slices.Clone(r.Points)
	s.records = append(s.records, r)
	return true
}

func (s *sink) Deliver(ctx context.Context, r record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.records = append(s.records, r)
	}
	return ctx.Err()
}

// plant is a master and slaves on one line, in simulated time.
type plant struct {
	*testing.T
	line   *wire.Line
	dialer transport.Dialer
	talks  []wire.Talk
	link   *modbus.Link
}

const answerTime = 5 * time.Millisecond

// onALine plays in a bubble: slaves with the given units hang on a line at
// 9600 baud, answer 5 ms after the request, and a link is open on it.
func onALine(t *testing.T, units []int, play func(p *plant, slaves map[int]*modbusslave.Slave)) {
	t.Helper()
	onALineWith(t, units, func(d transport.Dialer) transport.Dialer { return d }, play)
}

// onALineWith has the link dial what changed makes of the line.
func onALineWith(t *testing.T, units []int, changed func(transport.Dialer) transport.Dialer, play func(p *plant, slaves map[int]*modbusslave.Slave)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &plant{T: t}
		p.line = wire.New(wire.Config{Baud: 9600, OnTalk: func(talk wire.Talk) { p.talks = append(p.talks, talk) }})
		slaves := make(map[int]*modbusslave.Slave)
		for _, unit := range units {
			slaves[unit] = modbusslave.New(modbusslave.Config{Unit: unit, Delay: answerTime})
			slaves[unit].Set(modbus.Holding, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
			slaves[unit].Attach(p.line)
		}
		p.dialer = changed(p.line.Dialer("master"))
		link, err := modbus.NewLink(p.dialer, modbus.LinkConfig{
			Framing: modbus.FramingRTU, LateReplyGuard: time.Second, TurnaroundDelay: 100 * time.Millisecond,
		}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		p.link = link
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = p.line.Run(ctx) })
		if err := link.Open(ctx); err != nil {
			t.Fatal(err)
		}
		play(p, slaves)
		if err := link.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
	})
}

// ask does one transaction, which may take 300 ms.
func (p *plant) ask(unit int, r modbus.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(p.Context(), 300*time.Millisecond)
	defer cancel()
	return p.link.Do(ctx, unit, r)
}

// read is a request for holding registers.
func (p *plant) read(first, count int) modbus.Request {
	r, err := modbus.Read(modbus.Holding, first, count)
	if err != nil {
		p.Fatal(err)
	}
	return r
}
