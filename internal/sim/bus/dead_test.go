package bus

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
)

// Of all slaves on a line these stay alive; the others die.
const live, all = 24, 32

// A line is looked at for as long as it runs. Who dies has died in its first
// minute, and settled says when that has been found out, and each has been heard
// out once.
const settled = 150 * time.Second

var runs = flag.Duration("runs", 4*time.Minute, "how long the lines with dead slaves run, in simulated time")

// shuffled units, the same each time: those that die hang anywhere on the line.
func shuffled(seed uint64) (alive, dying []int) {
	list := units(1, all)
	rand.New(rand.NewPCG(seed, seed)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:live], list[live:]
}

// death is how slaves die: b has just begun to run.
type death func(b *bus, dying []int)

// dieAt has each die at its time.
func dieAt(at func(i int) time.Duration) death {
	return func(b *bus, dying []int) {
		for i, unit := range dying {
			time.AfterFunc(at(i), func() { b.slaves[unit].Always(modbusslave.Dead) })
		}
	}
}

// comeAndGo has each die and live again, every 5 to 45 s.
func comeAndGo(b *bus, dying []int) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, unit := range dying {
		fault := modbusslave.Fault(nil)
		for at := time.Duration(0); at < *runs; at += time.Duration(5+random.IntN(40)) * time.Second {
			if fault == nil {
				fault = modbusslave.Dead
			} else {
				fault = nil
			}
			now := fault
			time.AfterFunc(at, func() { b.slaves[unit].Always(now) })
		}
	}
}

// The live ones' polls load the line to 70 %. Before the others die, all of them
// together load it to 93 %. A dead one is heard out now and then for as long as
// the others can bear; they can bear to be late then, but not to miss a period.
func TestTheLiveKeepTheirPeriodsBesideTheDead(t *testing.T) {
	for how, c := range map[string]struct {
		die   death
		bauds []int
		most  float64 // of the deviations' p99, once settled
	}{
		"dead from the start":       {dieAt(func(int) time.Duration { return 0 }), []int{9600, 19200, 115200}, 0.10},
		"dying at once":             {dieAt(func(int) time.Duration { return 30 * time.Second }), []int{9600, 115200}, 0.10},
		"dying one after the other": {dieAt(func(i int) time.Duration { return time.Duration(i) * 7 * time.Second }), []int{9600}, 0.10},
		"coming and going":          {comeAndGo, []int{9600}, 0.20},
	} {
		for _, baud := range c.bauds {
			t.Run(fmt.Sprintf("%d baud, %s", baud, how), func(t *testing.T) {
				t.Parallel()
				alive, dead := shuffled(uint64(baud))
				s := setup{baud: baud, slaves: all}
				s.loads(0.7, alive)
				s.play(t, func(b *bus) {
					c.die(b, dead)
					pass(*runs)
					whole, after := b.deviation(b.since(0), alive), b.deviation(b.since(settled), alive)
					b.Logf("period %v: %v; once settled %v; the dead were asked %d times", b.every, whole, after, b.questions(dead))
					if after.p99 > c.most {
						b.Errorf("once settled: %v, want a p99 of at most %.0f %%", after, 100*c.most)
					}
					if whole.worst > 0.9 {
						b.Errorf("a period was missed: %v", whole)
					}
					b.orderly()
				})
			})
		}
	}
}

// questions is how often these units were asked.
func (b *bus) questions(units []int) (n int) {
	talks := b.log.Talks()
	for _, unit := range units {
		n += len(talks.Requests(master, byte(unit)))
	}
	return n
}
