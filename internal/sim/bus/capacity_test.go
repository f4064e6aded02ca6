package bus

import (
	"fmt"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport/serial"
)

// efficiency is the share of the time since then that the transactions would
// have taken at best.
func (b *bus) efficiency(since time.Duration) float64 {
	best := time.Duration(0)
	for _, request := range b.since(since).By(master) {
		best += b.transaction(int(request.Bytes[0]))
	}
	return float64(best) / float64(time.Since(b.start)-since)
}

func TestALineCarriesNinetyFivePercentOfWhatItCould(t *testing.T) {
	for _, baud := range []int{9600, 19200, 115200} {
		for _, slaves := range []int{1, 2, 8, 32} {
			t.Run(fmt.Sprintf("%d baud, %d slaves", baud, slaves), func(t *testing.T) {
				s := setup{baud: baud, slaves: slaves}
				s.loads(2, units(1, slaves))
				s.play(t, func(b *bus) {
					pass(15 * time.Second)
					const settled = 5 * time.Second
					got := b.efficiency(settled)
					b.Logf("%.2f %% of the ideal, %.1f transactions/s", 100*got, float64(len(b.since(settled).By(master)))/10)
					if got < 0.95 {
						b.Errorf("%.2f %% of what the line could carry, want 95 %%", 100*got)
					}
					b.orderly()
					for unit := range b.slaves {
						if n, fair := len(b.since(settled).Requests(master, byte(unit))), len(b.since(settled).By(master))/slaves; n < fair*9/10-1 {
							b.Errorf("unit %d was asked %d times, the others about %d", unit, n, fair)
						}
					}
				})
			})
		}
	}
}

// In real time, over a pseudo-terminal that the agent's serial transport opens.
// A ratio to the ideal is what counts; docs/benchmarks.md has it.
func BenchmarkLine(b *testing.B) {
	for _, baud := range []int{9600, 115200} {
		b.Run(fmt.Sprintf("baud=%d", baud), func(b *testing.B) {
			s := setup{baud: baud, slaves: 8}
			s.loads(2, units(1, s.slaves))
			for b.Loop() {
				line := s.build(b)
				port, err := line.wire.OpenPort(master)
				if err != nil {
					b.Fatal(err)
				}
				stop := line.run(serial.NewDialer(port.Path(), serial.Config{Baud: baud, DataBits: 8, Parity: "even", StopBits: 1}))
				pass(12 * time.Second)
				const settled = 2 * time.Second
				b.ReportMetric(line.efficiency(settled), "of-ideal")
				b.ReportMetric(float64(len(line.since(settled).By(master)))/10, "transactions/s")
				stop()
			}
		})
	}
}
