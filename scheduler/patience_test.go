package scheduler

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

func TestPatienceIsWhatAnswersTakeAndFourTimesTheirSpread(t *testing.T) {
	var p patience
	if got := p.within(10*ms, time.Second); got != time.Second {
		t.Errorf("of an unknown device: %v", got)
	}
	p.heard(40 * ms) // RFC 6298, 2.2: the spread is half of the first one
	if got := p.measured(); got != 120*ms {
		t.Errorf("after one answer: %v", got)
	}
	p.heard(80 * ms) // 2.3: spread 3/4·20 + 1/4·40, mean 7/8·40 + 1/8·80
	if p.spread != 25*ms || p.mean != 45*ms || p.measured() != 145*ms {
		t.Errorf("after two answers: %+v", p)
	}
	for range 200 {
		p.heard(20 * ms)
	}
	if got := p.measured(); got < 20*ms || got > 21*ms {
		t.Errorf("of steady answers: %v", got)
	}
	if got := p.within(100*ms, time.Second); got != 100*ms {
		t.Errorf("%v is below its bound", got)
	}
}

func TestPatienceStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p patience
		low := time.Duration(rapid.Int64Range(1, int64(time.Second)).Draw(t, "low"))
		high := low + time.Duration(rapid.Int64Range(0, int64(5*time.Minute)).Draw(t, "more"))
		for _, took := range rapid.SliceOf(rapid.Int64Range(1, int64(10*time.Minute))).Draw(t, "took") {
			p.heard(time.Duration(took))
			if got := p.within(low, high); got < low || got > high || p.mean <= 0 || p.spread < 0 {
				t.Fatalf("%v is not within %v and %v; %+v", got, low, high, p)
			}
		}
	})
}

func TestABudgetIsAShareOfAllTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		share := rapid.Float64Range(0.001, 1).Draw(t, "share")
		most := time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "most"))
		b := budget{share: share, most: most, saved: most}
		now := time.Unix(1e9, 0)
		start, spent, largest := now, time.Duration(0), time.Duration(0)
		for range rapid.IntRange(1, 60).Draw(t, "n") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "gap")))
			if paid := b.paid(now); paid.After(now) {
				if rapid.Bool().Draw(t, "patient") {
					now = paid
					if again := b.paid(now); again.After(now) {
						t.Fatalf("at the time that it named it names %v later", again.Sub(now))
					}
				}
				continue
			}
			cost := time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "cost"))
			b.spend(now, cost)
			spent += cost
			largest = max(largest, cost)
			if limit := float64(most) + float64(largest) + share*float64(now.Sub(start)) + 1; float64(spent) > limit {
				t.Fatalf("%v was spent in %v", spent, now.Sub(start))
			}
		}
	})
}

func TestQuarantineGrowsFromThePeriodToItsLimitForAnyPeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.Int64Range(1, int64(1000*time.Hour)).Draw(t, "every"))
		limit := time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(t, "limit"))
		d := &device{}
		now := time.Unix(1e9, 0)
		waits := make(map[time.Duration]bool)
		for n := range 80 {
			d.unanswered(now, every, limit, errors.New("silence"))
			wait, most := d.silentUntil.Sub(now), max(limit, every)
			if n == 0 {
				most = 0
			} else if every <= most>>min(n, 32) {
				most = every << min(n, 32)
			}
			if wait > most || wait < most-most/5-1 {
				t.Fatalf("failure %d: %v until the next probe, want up to %v", n+1, wait, most)
			}
			waits[wait] = true
		}
		if len(waits) < 40 {
			t.Fatalf("of 80 waits only %d differ", len(waits))
		}
	})
}

func TestARoundKeepsItsPhase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Unix(1e9, 0)
		every := time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "every"))
		r := &round{every: every, due: start}
		now := start.Add(time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "late")))
		skipped := r.advance(now)
		if ahead := r.due.Sub(start); ahead <= 0 || ahead%every != 0 || uint64(ahead/every) != skipped+1 {
			t.Fatalf("moved by %v, %d skipped", ahead, skipped)
		}
		if late := now.Sub(r.due); late >= every || late < -every {
			t.Fatalf("late by %v", late)
		}
		until := now.Add(time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "silent")))
		r.skipTo(until)
		if r.due.Sub(start)%every != 0 || r.due.Before(until) && r.due.Sub(start) < 0 || r.due.Sub(until) >= every && until.After(now) && r.due.Sub(now) > every {
			t.Fatalf("due %v after the end of its quarantine", r.due.Sub(until))
		}
		ahead := r.due.Sub(now)
		r.resume(now)
		if left := r.due.Sub(now); r.due.Sub(start)%every != 0 || left > every || ahead > 0 && left <= 0 || ahead <= 0 && left != ahead {
			t.Fatalf("due in %v, resumed in %v", ahead, left)
		}
	})
}

// idle is a task and a link that are never used.
type idle struct {
	Task
	Link
}

func TestNoDeviceIsLeftUnaskedForLongerThanTwiceProbeMax(t *testing.T) {
	var polls []Poll
	for _, id := range []string{"a", "b"} {
		polls = append(polls, Poll{Device: id, Every: time.Second, Task: idle{}})
	}
	l, err := NewLane("line", idle{}, polls, Config{ProbeMax: 20 * time.Second}, NewShared(SharedConfig{}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	r := l.agenda.rounds[0]
	if got := l.affordable(r, now); got != now {
		t.Errorf("a device that was never asked must wait %v", got.Sub(now))
	}
	r.device.asked = now
	l.agenda.rounds[1].device.lastGood = now // somebody is there to be hurt
	l.budget.spend(now, time.Hour)
	r.device.budget.spend(now, time.Hour)
	for name, change := range map[string]func(){
		"never answered": func() {},
		"flaky":          func() { r.device.lastGood = now },
		"in quarantine":  func() { r.device.failures = 3 },
	} {
		change()
		if got := l.affordable(r, now); got != now.Add(40*time.Second) {
			t.Errorf("%s: it must wait %v", name, got.Sub(now))
		}
	}
	for name, later := range map[string]*round{
		"a round that is being answered":      {device: r.device, begun: true},
		"a command that was answered in part": {device: r.device, begun: true, acted: true, job: &Job{}},
	} {
		if got := l.affordable(later, now); got != now {
			t.Errorf("%s must wait %v", name, got.Sub(now))
		}
	}
}
