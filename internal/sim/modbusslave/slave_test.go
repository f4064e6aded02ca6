package modbusslave_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/internal/clock"
	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport/serial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// ledger notes which numbers left the slaves, and which arrived.
type ledger struct {
	mu             sync.Mutex
	sent, received map[string][]uint32
	lateBy         map[string]time.Duration
	arrived        chan struct{}
}

func (l *ledger) answered(a modbusslave.Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	device := fmt.Sprint("unit ", a.Unit)
	if took := a.Sent.Sub(a.Asked); took > timeout {
		l.lateBy[device] = took - timeout
		return
	}
	l.sent[device] = append(l.sent[device], a.N)
}

func (l *ledger) Offer(r record.Record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := r.Points[0].Value.Uint(); ok {
		l.received[r.Device] = append(l.received[r.Device], uint32(n))
		select {
		case l.arrived <- struct{}{}:
		default:
		}
	}
	return true
}

func (l *ledger) Deliver(_ context.Context, r record.Record) error {
	l.Offer(r)
	return nil
}

const timeout = 400 * time.Millisecond

// TestAMasterOnTheSimulatedLineGetsOnlyWhatWasSentInTimeAndInOrder has the real
// serial transport, driver and lane on one end of the line. On a busy machine the
// lane may have given an answer up that the slave sent in time.
func TestAMasterOnTheSimulatedLineGetsOnlyWhatWasSentInTimeAndInOrder(t *testing.T) {
	book := &ledger{sent: map[string][]uint32{}, received: map[string][]uint32{}, lateBy: map[string]time.Duration{}, arrived: make(chan struct{}, 1)}
	line := wire.New(wire.Config{Baud: 38400, CharBits: 10})
	port, err := line.OpenPort("agent")
	if err != nil {
		t.Fatal(err)
	}
	link, err := modbus.NewLink(
		serial.NewDialer(port.Path(), serial.Config{Baud: 38400, DataBits: 8, Parity: "none", StopBits: 1}),
		modbus.LinkConfig{Framing: modbus.FramingRTU, LateReplyGuard: 300 * time.Millisecond}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	var polls []scheduler.Poll
	for unit := 1; unit <= 5; unit++ {
		slave := modbusslave.New(modbusslave.Config{Unit: unit, Delay: 2 * time.Millisecond, OnAnswer: book.answered})
		slave.Number(modbus.Holding, 0)
		slave.Set(modbus.Holding, 2, 7, 8, 9)
		slave.Attach(line)
		switch unit {
		case 3:
			slave.Next(nil, modbusslave.Late(600*time.Millisecond), nil, modbusslave.BadCRC)
		case 4:
			slave.Next(nil, nil, modbusslave.Short, modbusslave.Babble(0xFF, 0x00))
		case 5:
			slave.Always(modbusslave.Dead)
		}
		device := fmt.Sprint("unit ", unit)
		poll, err := link.Poll(modbus.PollConfig{
			ID: device, Name: "p",
			Device: modbus.DeviceConfig{Unit: unit, MaxRegisters: 125, MaxBits: 2000},
			Points: []modbus.PointConfig{
				{Name: "number", Address: "holding:0", Type: "uint32", Order: "ABCD", Scale: 1},
				{Name: "text", Address: "holding:2", Type: "string", Length: 6, Order: "ABCD", Scale: 1},
			},
		}, book, clock.New().Now)
		if err != nil {
			t.Fatal(err)
		}
		polls = append(polls, scheduler.Poll{Device: device, Name: "p", Every: timeout / 2, Task: poll})
	}
	cfg := scheduler.Config{Timeout: timeout, TimeoutMin: timeout, RetryCount: 3}
	lane, err := scheduler.NewLane("rs485", link, polls, cfg, scheduler.NewShared(scheduler.SharedConfig{}), quiet)
	if err != nil {
		t.Fatal(err)
	}

	wireCtx, cut := context.WithCancel(context.Background())
	laneCtx, stop := context.WithCancel(context.Background())
	var world, agent sync.WaitGroup
	world.Go(func() { _ = line.Run(wireCtx) })
	agent.Go(func() { _ = lane.Run(laneCtx) })
	enough := time.After(20 * time.Second)
	for done := false; !done; {
		select {
		case <-book.arrived:
			done = book.has("unit 1", 10) && book.has("unit 3", 4) && book.has("unit 4", 5)
		case <-enough:
			t.Errorf("too few answers: %v", book.received)
			done = true
		}
	}
	stop()
	agent.Wait()
	cut()
	world.Wait()

	for unit := 1; unit <= 4; unit++ {
		device := fmt.Sprint("unit ", unit)
		sent := book.sent[device]
		for _, n := range book.received[device] {
			at := slices.Index(sent, n)
			if at < 0 {
				t.Errorf("%s sent %v, received %v", device, book.sent[device], book.received[device])
				break
			}
			sent = sent[at+1:]
		}
	}
	if len(book.sent["unit 5"]) != 0 {
		t.Errorf("the dead one sent %v", book.sent["unit 5"])
	}
	// The answer that comes after its time-out comes late, or runs into somebody
	// else's: nothing but that may collide.
	late, collisions := book.lateBy["unit 3"] > 0, line.Collisions()
	if !late && collisions == 0 || collisions > 1 {
		t.Errorf("late %v, %d collisions; %+v", book.lateBy, collisions, link.Counters())
	}
}

func (l *ledger) has(device string, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.received[device]) >= n
}
