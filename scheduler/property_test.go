package scheduler_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/scheduler"
)

const ms = time.Millisecond

type pollPlan struct{ device, every, took, steps, heavy int }

type jobPlan struct {
	device, at, time, took, steps int
	repeat                        bool
}

func plans(rt *rapid.T) (polls []pollPlan, jobs []jobPlan) {
	draw := func(t *rapid.T, name string, low, high int) int { return rapid.IntRange(low, high).Draw(t, name) }
	polls = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pollPlan {
		return pollPlan{draw(t, "device", 0, 4), draw(t, "every", 30, 2000), draw(t, "took", 1, 60), draw(t, "steps", 1, 3), draw(t, "heavy", 0, 3)}
	}), 0, 10).Draw(rt, "polls")
	jobs = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) jobPlan {
		return jobPlan{
			draw(t, "device", 0, 5), draw(t, "at", 0, 20000), draw(t, "time", 0, 10000), draw(t, "took", 1, 60), draw(t, "steps", 1, 3),
			rapid.Bool().Draw(t, "repeat"),
		}
	}), 0, 30).Draw(rt, "jobs")
	return polls, jobs
}

func TestWhateverHappensEveryRoundEndsOnceAndNoLineCarriesTooMuch(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		polls, jobs := plans(rt)
		seed := rapid.Uint64().Draw(rt, "seed")
		cfg := adaptive()
		cfg.ProbeMax = 10 * time.Second
		cfg.Transactions = rapid.SampledFrom([]int{1, 1, 1, 2, 3, 8}).Draw(rt, "transactions")
		sick := rapid.SampledFrom([]int{0, 3, 20, 60}).Draw(rt, "sick")
		limit := rapid.SampledFrom([]float64{0, 0, 0.5, 20}).Draw(rt, "rate")
		life := rapid.IntRange(0, 25000).Draw(rt, "life")
		var problems []string
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, start: time.Now(), chance: rand.New(rand.NewPCG(seed, 1)), transactions: cfg.Transactions, sick: sick}
			problems = w.live(polls, jobs, cfg, limit, time.Duration(life)*ms)
		})
		if len(problems) > 0 {
			rt.Fatalf("%q", problems)
		}
	})
}

// live runs the world for so long and returns what has gone wrong.
func (w *world) live(plans []pollPlan, jobs []jobPlan, cfg scheduler.Config, limit float64, life time.Duration) []string {
	var polls []scheduler.Poll
	var tasks []*worldly
	for i, p := range plans {
		every := time.Duration(p.every) * ms
		task := &worldly{world: w, name: fmt.Sprint("poll ", i), steps: p.steps, took: time.Duration(p.took) * ms, every: every, heavy: p.heavy}
		tasks = append(tasks, task)
		polls = append(polls, scheduler.Poll{Device: fmt.Sprint("d", p.device), Every: every, Task: task})
		if limit > 0 {
			cfg.Rates = map[string]float64{"d0": limit, "d1": limit, "d2": limit, "d3": limit, "d4": limit, "d5": limit, "d6": limit, "d7": limit}
		}
	}
	l := start(w.t, w, cfg, polls...)
	var group sync.WaitGroup
	for i, p := range jobs {
		submitted := w.start.Add(time.Duration(p.at) * ms)
		j := scheduler.Job{Device: fmt.Sprint("d", p.device), Deadline: submitted.Add(time.Duration(p.time) * ms), Repeat: p.repeat}
		task := &worldly{world: w, name: fmt.Sprint("job ", i), steps: p.steps, took: time.Duration(p.took) * ms, job: &j}
		j.Task = task
		group.Go(func() {
			<-time.After(time.Until(submitted))
			taken := l.Submit(j) == nil
			<-time.After(life + time.Minute)
			w.mu.Lock()
			defer w.mu.Unlock()
			if taken && len(task.ended) != 1 || !taken && (len(task.ended) > 0 || task.rounds > 0) {
				w.wrong("%s: taken %v, begun %d times, ended with %v", task.name, taken, task.rounds, task.ended)
			}
		})
	}
	<-time.After(life)
	l.end()
	for _, task := range tasks {
		if task.begun || task.working || task.rounds != len(task.ended) {
			w.wrong("%s: %d rounds, %d ended, begun %v, working %v", task.name, task.rounds, len(task.ended), task.begun, task.working)
		}
		if w.sick == 0 && life > 3*time.Second && limit == 0 && task.rounds == 0 {
			w.wrong("%s has starved", task.name)
		}
	}
	if took := time.Since(w.start) - life; took > 5*time.Second+ms {
		w.wrong("it took %v to stop", took)
	}
	group.Wait()
	if w.open || w.flying != 0 {
		w.wrong("left open %v, %d transactions under way", w.open, w.flying)
	}
	return w.problems
}

// busy is a healthy poll that notes how long it was not begun.
type busy struct {
	took    time.Duration
	steps   int
	step    int
	rounds  int
	since   time.Time // when the last round ended
	longest time.Duration
}

func (b *busy) Begin(time.Time) {
	b.step = 0
	b.rounds++
	b.longest = max(b.longest, time.Since(b.since))
}

func (b *busy) Step(_ context.Context, t *scheduler.Turn) (bool, error) {
	t.Sent, t.Took = true, b.took
	<-time.After(b.took)
	b.step++
	return b.step < b.steps, nil
}

func (b *busy) End(error) func(context.Context) {
	b.since = time.Now()
	return nil
}

// The bound: a poll falls due at the latest one period after its last round, and
// keeps its rank from then on. After one more period, whatever falls due comes
// behind it, so each other poll has at most one round before it; before each of
// their steps and its own may go commandRun commands, and one transaction is
// under way.
func TestNoPollWaitsLongerThanTwoPeriodsAndARoundOfEachOther(t *testing.T) {
	const commandRun, commandTook = 4, 7 * ms
	rapid.Check(t, func(rt *rapid.T) {
		type plan struct{ every, took, steps int }
		list := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) plan {
			return plan{rapid.IntRange(10, 500).Draw(t, "every"), rapid.IntRange(1, 50).Draw(t, "took"), rapid.IntRange(1, 3).Draw(t, "steps")}
		}), 1, 8).Draw(rt, "polls")
		storm := rapid.Bool().Draw(rt, "storm")
		cfg := adaptive()
		cfg.Transactions = rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(rt, "transactions")
		var problems []string
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			var polls []scheduler.Poll
			var tasks []*busy
			steps, work, slowest := 0, time.Duration(0), commandTook
			for i, p := range list {
				task := &busy{took: time.Duration(p.took) * ms, steps: p.steps, since: begin}
				tasks = append(tasks, task)
				polls = append(polls, scheduler.Poll{Device: fmt.Sprint(i), Every: time.Duration(p.every) * ms, Task: task})
				steps += p.steps
				work += task.took * time.Duration(p.steps)
				slowest = max(slowest, task.took)
			}
			l := start(t, &fakeLink{}, cfg, polls...)
			for time.Since(begin) < 2*time.Second {
				for storm && l.Submit(scheduler.Job{Device: "0", Task: &busy{took: commandTook, steps: 1, since: begin}, Deadline: begin.Add(time.Hour)}) == nil {
					continue // as many as it takes
				}
				<-time.After(20 * ms)
			}
			l.end()
			for i, task := range tasks {
				others := time.Duration(steps - task.steps)
				bound := 2*polls[i].Every + work - task.took*time.Duration(task.steps) + slowest
				if storm {
					bound += (others + 1) * commandRun * commandTook
				}
				if task.longest > bound || task.rounds == 0 {
					problems = append(problems, fmt.Sprintf("poll %d was not begun for %v, the bound is %v", i, task.longest, bound))
				}
			}
		})
		if len(problems) > 0 {
			rt.Fatal(problems)
		}
	})
}

func TestCommandsGoBeforePollsButOnePollAfterEachFourOfThem(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		polls := rapid.IntRange(1, 6).Draw(rt, "polls")
		submits := rapid.SliceOfN(rapid.IntRange(0, 1000), 0, 30).Draw(rt, "submits")
		var problem string
		synctest.Test(t, func(t *testing.T) {
			var turns []string
			begin := time.Now()
			var list []scheduler.Poll
			for i := range polls {
				list = append(list, poll(fmt.Sprint("poll", i), 40*ms, &fakeTask{took: 10 * ms, order: &turns}))
			}
			l := start(t, &fakeLink{}, fixed(), list...)
			var orders []*order
			var group sync.WaitGroup
			for _, after := range submits {
				o := &order{device: "poll0", name: "job", start: begin, took: 10 * ms, order: &turns}
				orders = append(orders, o)
				group.Go(func() {
					<-time.After(time.Duration(after)*ms + ms/2)
					l.submit(o, time.Hour)
				})
			}
			group.Wait()
			l.at(begin, 2*time.Second)
			l.end()
			problem = outOfTurn(orders, submits)
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// outOfTurn finds a command that has waited for more than the transaction under
// way, the commands that went before it, and a poll after each four of them.
func outOfTurn(orders []*order, submits []int) string {
	const took = 10 * ms
	for i, o := range orders {
		submitted, went := time.Duration(submits[i])*ms+ms/2, o.stepped[0]
		before := 0
		for _, other := range orders {
			if other.stepped[0] >= submitted && other.stepped[0] < went {
				before++
			}
		}
		most := time.Duration(1+before+(before+4)/4) * took
		if waited := went - submitted; waited > most {
			return fmt.Sprintf("command %d has waited for %v behind %d others, at most %v", i, waited, before, most)
		}
	}
	return ""
}

func TestNoLiveDeviceMissesAPeriodBecauseOfDeadOnes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		live := rapid.IntRange(2, 14).Draw(rt, "live")
		dead := rapid.IntRange(1, 8).Draw(rt, "dead")
		load := rapid.IntRange(5, 70).Draw(rt, "load")
		every := time.Duration(rapid.SampledFrom([]int{200, 1000, 5000}).Draw(rt, "every")) * ms
		dies := rapid.Bool().Draw(rt, "dies") // or is dead from the beginning
		var problems []string
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			took := min(every*time.Duration(load)/100/time.Duration(live), every*2/5, 800*ms) // what a line can find out
			list, polls := units(live+dead, took)
			for i := range polls {
				polls[i].Every = every
			}
			for _, u := range list[live:] {
				u.dead, u.took = !dies, ms
			}
			cfg := adaptive()
			cfg.Timeout = min(cfg.Timeout, every) // else a hearing out may cost rounds, see hearout_test.go
			l := start(t, &fakeLink{}, cfg, polls...)
			settled := 10*time.Second + 25*every // also slow ones were found, and all dead ones are in quarantine
			l.at(begin, 10*time.Second)
			for _, u := range list[live:] {
				u.dead = true
			}
			l.at(begin, settled)
			before, counts := l.Status(), make([]int, live)
			for i := range counts {
				counts[i] = len(list[i].ended)
			}
			l.at(begin, settled+40*every)
			after := l.Status()
			for i, u := range list[:live] {
				if got, want := len(u.ended)-counts[i], 40; got < want-1 || got > want+1 {
					problems = append(problems, fmt.Sprintf("live device %d: %d rounds, not %d", i, got, want))
				}
				for _, err := range u.ended[counts[i]:] {
					if err != nil {
						problems = append(problems, fmt.Sprintf("live device %d was told %v", i, err))
						break
					}
				}
			}
			if after.Utilisation > 1 || before.Timeouts > after.Timeouts {
				problems = append(problems, fmt.Sprintf("%+v", after))
			}
			l.end()
		})
		if len(problems) > 0 {
			rt.Fatal(problems)
		}
	})
}
