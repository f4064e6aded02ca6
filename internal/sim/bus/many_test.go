package bus

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
)

// A fleet is many lines of 32 devices. There is no wire: a transaction takes its
// time, and that is all.
const perLine = 32

// gadget is a device and its poll. It notes which of its periods it missed.
type gadget struct {
	takes time.Duration // to answer
	every time.Duration
	dies  time.Time // zero: never

	due            time.Time // of the round under way
	rounds, missed int
	latest         time.Duration // it began after its round fell due
}

var _ scheduler.Task = (*gadget)(nil)

func (g *gadget) dead() bool { return !g.dies.IsZero() && !time.Now().Before(g.dies) }

// Begin notes a period that was missed: its round was left out, or begins only
// when the next one is due.
func (g *gadget) Begin(due time.Time) {
	late := time.Since(due)
	if g.rounds > 0 {
		g.missed += int(due.Sub(g.due)/g.every) - 1
	}
	if late >= g.every {
		g.missed++
	}
	g.rounds, g.due, g.latest = g.rounds+1, due, max(g.latest, late)
}

func (g *gadget) Step(ctx context.Context, t *scheduler.Turn) (bool, error) {
	takes := g.takes
	if g.dead() || takes > t.Timeout {
		takes = t.Timeout
	}
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-timer.C:
	}
	if g.dead() || g.takes > t.Timeout {
		return false, os.ErrDeadlineExceeded
	}
	t.Took = takes
	return false, nil
}

func (g *gadget) End(error) func(context.Context) { return nil }

// socket is a link that is always there.
type socket struct{}

func (socket) Open(context.Context) error { return nil }
func (socket) Lost() <-chan struct{}      { return nil }
func (socket) Close() error               { return nil }

// fleet says how many lines there are, and what one transaction takes.
type fleet struct {
	lines int
	takes time.Duration
	lasts time.Duration // in simulated time
}

// On each line one or two devices die, 5 % of all: some are dead from the
// start, the others die at random moments. The live ones load their line to 70 %.
func (f fleet) play(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := scheduler.NewShared(scheduler.SharedConfig{Workers: 8, MaxOpening: 256})
		random := rand.New(rand.NewPCG(1, 2))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var gadgets []*gadget
		before := heap()
		for n := range f.lines {
			some := f.line(n, random)
			gadgets = append(gadgets, some...)
			var polls []scheduler.Poll
			for i, g := range some {
				polls = append(polls, scheduler.Poll{Device: fmt.Sprint(n, "-", i), Name: "poll", Every: g.every, Task: g})
			}
			lane, err := scheduler.NewLane(fmt.Sprint(n), socket{}, polls, scheduler.Config{Phase: random.Float64(), RetryCount: 3}, shared, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() { _ = lane.Run(ctx) })
		}
		pass(f.lasts)
		memory := heap() - before
		cancel()
		running.Wait()
		f.judge(t, gadgets)
		t.Logf("%d bytes of memory a device", memory/int64(len(gadgets)))
	})
}

// line makes the devices of line n.
func (f fleet) line(n int, random *rand.Rand) []*gadget {
	dying := 1
	if n%5 < 3 {
		dying = 2 // 1.6 of 32 are 5 %
	}
	every := time.Duration(float64(perLine-dying) * float64(f.takes) / 0.7)
	gadgets := make([]*gadget, perLine)
	for i := range gadgets {
		gadgets[i] = &gadget{takes: f.takes, every: every}
	}
	for _, i := range random.Perm(perLine)[:dying] {
		gadgets[i].dies = time.Now()
		if random.IntN(3) > 0 {
			gadgets[i].dies = gadgets[i].dies.Add(time.Duration(random.Int64N(int64(f.lasts))))
		}
	}
	return gadgets
}

func (f fleet) judge(t *testing.T, gadgets []*gadget) {
	alive, rounds, missed, worst := 0, 0, 0, 0.0
	for _, g := range gadgets {
		if !g.dies.IsZero() {
			continue
		}
		alive++
		rounds += g.rounds
		missed += g.missed
		if want := int(f.lasts / g.every); g.rounds < want-1 {
			t.Errorf("a live device had %d rounds of %d", g.rounds, want)
		}
		worst = max(worst, float64(g.latest)/float64(g.every))
	}
	t.Logf("%d devices, %d alive: %d rounds, the latest %.1f %% of its period late", len(gadgets), alive, rounds, 100*worst)
	if missed > 0 {
		t.Errorf("live devices missed %d periods", missed)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// devices is how many there are. A hundred thousand take a minute and more, so
// that the suite has fewer.
var devices = flag.Int("devices", 2_000, "how many simulated devices")

func TestNoLiveDeviceMissesAPeriodBecauseOfTheDead(t *testing.T) {
	for _, f := range []fleet{
		{takes: 225 * time.Millisecond, lasts: 3 * time.Minute}, // a period of ten seconds
		{takes: 20 * time.Millisecond, lasts: 20 * time.Second}, // of one
	} {
		f.lines = *devices / perLine
		t.Run(fmt.Sprint(f.takes), f.play)
	}
}
