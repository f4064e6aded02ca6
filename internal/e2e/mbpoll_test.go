package e2e

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
)

// TestMbpollReadsAndWritesOurSimulator: a master that nobody here wrote
// understands our simulated slave, which the agent's tests stand on.
func TestMbpollReadsAndWritesOurSimulator(t *testing.T) {
	t.Parallel()
	slave := func() *modbusslave.Slave {
		s := modbusslave.New(modbusslave.Config{Unit: 5, Delay: 2 * time.Millisecond})
		s.Set(modbus.Coil, 0, 1, 0, 1)
		s.Set(modbus.Discrete, 0, 0, 1, 1)
		s.Set(modbus.Input, 0, 1000, 2000, 0xFFF9)
		s.Set(modbus.Holding, 0, 0x41AC, 0, 7)
		return s
	}
	rtu, tcp := slave(), slave()
	bus := wire.New(wire.Config{Baud: 19200})
	rtu.Attach(bus)
	port, err := bus.OpenPort("mbpoll")
	if err != nil {
		t.Fatal(err)
	}
	port.Wants(wire.Setting{Baud: 19200, StopBits: 1})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = bus.Run(ctx) })
	running.Go(func() { _ = (&modbusslave.Server{Slaves: []*modbusslave.Slave{tcp}}).Serve(ctx, ln) })
	t.Cleanup(func() { cancel(); running.Wait() })

	t.Run("RTU", func(t *testing.T) {
		mbpoll{t, rtu, []string{"-m", "rtu", "-b", "19200", "-P", "even", port.Path()}}.test()
	})
	t.Run("TCP", func(t *testing.T) {
		tcpPort := fmt.Sprint(ln.Addr().(*net.TCPAddr).Port)
		mbpoll{t, tcp, []string{"-m", "tcp", "-p", tcpPort, "127.0.0.1"}}.test()
	})
}

// mbpoll is the program, toward one slave.
type mbpoll struct {
	t     *testing.T
	slave *modbusslave.Slave
	reach []string
}

func (m mbpoll) test() {
	const coils, discretes, inputs, holdings = "0", "1", "3", "4"
	m.reads(coils, 0, "1", "0", "1")
	m.reads(discretes, 0, "0", "1", "1")
	m.reads(inputs, 0, "1000", "2000", "65529 (-7)")
	m.reads(holdings, 0, "16812", "0", "7")
	m.reads(holdings+":float", 0, "21.5")

	m.writes(coils, modbus.Coil, 1, 1)              // function 5
	m.writes(coils, modbus.Coil, 0, 0, 1, 0)        // 15
	m.writes(holdings, modbus.Holding, 2, 4711)     // 6
	m.writes(holdings, modbus.Holding, 0, 1, 65535) // 16
	m.reads(coils, 0, "0", "1", "0")
	m.reads(holdings, 0, "1", "65535 (-1)", "4711")

	if out := m.run("-t", holdings, "-r", "100"); !strings.Contains(out, "Illegal data address") {
		m.t.Errorf("where nothing is: %s", out)
	}
}

// run lets mbpoll do one thing.
func (m mbpoll) run(args ...string) string {
	m.t.Helper()
	// -0: addresses count from zero, -1: once, -B: words in big-endian.
	all := append([]string{"-0", "-1", "-B", "-o", "5", "-a", "5"}, args...)
	_, out, errs := output(m.t, "mbpoll", append(all, m.reach...)...)
	return out + errs
}

func (m mbpoll) reads(table string, first int, want ...string) {
	m.t.Helper()
	out := m.run("-t", table, "-r", fmt.Sprint(first), "-c", fmt.Sprint(len(want)))
	var got []string
	for _, match := range regexp.MustCompile(`(?m)^\[\d+\]:\s+(.+?)\s*$`).FindAllStringSubmatch(out, -1) {
		got = append(got, match[1])
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		m.t.Errorf("mbpoll reads %q of table %s, want %q:\n%s", got, table, want, out)
	}
}

func (m mbpoll) writes(table string, into modbus.Table, first int, values ...uint16) {
	m.t.Helper()
	// What is written stands behind where it goes.
	var words []string
	for _, v := range values {
		words = append(words, fmt.Sprint(v))
	}
	m.reach = append(m.reach[:len(m.reach):len(m.reach)], words...)
	out := m.run("-t", table, "-r", fmt.Sprint(first))
	if want := fmt.Sprintf("Written %d references.", len(values)); !strings.Contains(out, want) {
		m.t.Errorf("mbpoll does not say %q:\n%s", want, out)
	}
	for i, v := range values {
		if got := m.slave.Get(into, first+i); got != v {
			m.t.Errorf("%v:%d holds %d, want %d", into, first+i, got, v)
		}
	}
}
