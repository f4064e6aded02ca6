package demo

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// replyTime is the time-out of the demo's Modbus links. An answer that took
// longer does not count, and one that came close to it counts if it arrived:
// the line's clock and the agent's are not the same.
const (
	replyTime = time.Second
	closeCall = replyTime * 8 / 10
)

// baud of the simulated RS-485 line.
const baud = 19200

// plant is the simulated plant: a serial bus with three slaves, one of them
// dead, a Modbus TCP controller, a scale that sends lines, and two machines that
// speak MCP.
type plant struct {
	ledger *ledger

	line  *wire.Line
	bus   *wire.Port
	plc   net.Listener
	scale *scale

	slaves  *modbusslave.Server
	presses []*mcp.Publisher
	names   []string

	running  sync.WaitGroup
	stopLine context.CancelFunc
	pushing  sync.WaitGroup
	stopPush context.CancelFunc
}

func newPlant(ctx context.Context, l *ledger, machines string) (*plant, error) {
	p := &plant{ledger: l, line: wire.New(wire.Config{Baud: baud, CharBits: 11})}
	var err error
	if p.bus, err = p.line.OpenPort("agent"); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	for unit, name := range map[int]string{1: "boiler-1", 2: "boiler-2"} {
		p.slave(unit, name, 10*time.Millisecond).Attach(p.line)
	}
	if p.plc, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	p.slaves = &modbusslave.Server{Slaves: []*modbusslave.Slave{p.slave(1, "plc-1", 2*time.Millisecond)}}
	if p.scale, err = newScale("scale-1", l); err != nil {
		return nil, err
	}
	for _, name := range []string{"press-1", "press-2"} {
		publisher, err := mcp.NewPublisher(mcp.PublisherConfig{
			Session: mcp.Config{Name: name}, Dialer: tcp.NewDialer(machines, nil), RetryMax: time.Second,
		})
		if err != nil {
			return nil, fmt.Errorf("demo: %w", err)
		}
		p.presses, p.names = append(p.presses, publisher), append(p.names, name)
	}
	return p, nil
}

// slave numbers its answers in registers 0 and 1 and warms up in register 2.
func (p *plant) slave(unit int, name string, delay time.Duration) *modbusslave.Slave {
	s := modbusslave.New(modbusslave.Config{
		Unit: unit, Delay: delay,
		OnAnswer: func(a modbusslave.Answer) {
			switch took := a.Sent.Sub(a.Asked); {
			case took >= replyTime:
			case took >= closeCall:
				p.ledger.perhapsSent(name, uint64(a.N))
			default:
				p.ledger.sent(name, uint64(a.N))
			}
		},
	})
	s.Number(modbus.Holding, 0)
	s.Set(modbus.Holding, 2, 215, 600)
	return s
}

// start turns the plant on: the slaves answer whoever asks.
func (p *plant) start() {
	line, stop := context.WithCancel(context.Background())
	p.stopLine = stop
	p.running.Go(func() { _ = p.line.Run(line) })
	p.running.Go(func() { _ = p.slaves.Serve(line, p.plc) })

	for _, publisher := range p.presses {
		p.running.Go(func() { _ = publisher.Run(line) })
	}
}

// speak starts the devices that speak by themselves. Somebody must listen: what
// a scale says to nobody is not lost by the agent.
func (p *plant) speak() {
	push, stopPush := context.WithCancel(context.Background())
	p.stopPush = stopPush
	p.pushing.Go(func() { p.scale.run(push, 100*time.Millisecond) })
	for i, publisher := range p.presses {
		p.pushing.Go(func() { p.publish(push, publisher, p.names[i]) })
	}
}

// publish sends n = 1, 2, 3 … A record counts as sent when the publisher has
// taken it: from then on it is the protocol's business.
func (p *plant) publish(ctx context.Context, publisher *mcp.Publisher, name string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		r := record.Record{
			Device: name, Stream: "stroke", Time: time.Now(),
			Points: []record.Point{{Name: "n", Value: record.Uint(n)}, {Name: "force", Value: record.Float64(80 + float64(n%40)/4), Unit: "kN"}},
		}
		if publisher.Publish(ctx, r) != nil {
			return
		}
		p.ledger.sent(name, n)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hush stops the devices that speak by themselves, and waits until what they
// have said is acknowledged. The others only answer, and go on.
func (p *plant) hush(ctx context.Context) {
	p.stopPush()
	p.pushing.Wait()
	for _, publisher := range p.presses {
		_ = publisher.Flush(ctx) // what is not acknowledged shows in the ledger
	}
}

// speakers are the devices that hush stops.
func (p *plant) speakers() []string { return append([]string{p.scale.name}, p.names...) }

// stop ends everything; the agent must be gone before.
func (p *plant) stop() {
	p.stopLine()
	p.running.Wait()
	p.scale.close()
}
