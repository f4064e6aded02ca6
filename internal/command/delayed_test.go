package command

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestALineThatStaysAwayIsAskedMoreAndMoreSeldom(t *testing.T) {
	r := newRig(t)
	l := r.lines["a"]
	l.away = true
	q := write("a", "p")
	q.Timeout = Duration(time.Hour)
	id := r.submit(q)
	var pauses []time.Duration
	for range 7 {
		r.box.write()
		_, pause := r.step()
		pauses = append(pauses, pause)
		r.clock.pass(pause)
	}
	want := []time.Duration{100, 200, 400, 800, 1600, 2000, 2000}
	for i := range want {
		if want[i] *= time.Millisecond; pauses[i] != want[i] {
			t.Fatalf("%v", pauses)
		}
	}
	l.away = false
	r.step()
	r.turn()
	do(r.job("a"), nil)
	r.turn()
	r.is(id, Succeeded)
	l.away = true
	r.submit(q)
	r.box.write()
	if _, pause := r.step(); pause != minAway {
		t.Errorf("when it goes away once more: %s", pause)
	}
}

func TestDevicesThatWaitComeBackInTheOrderOfTheirTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q delayed
		there := make(map[*device]bool)
		devices := make([]device, 10)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				d := &devices[rapid.IntRange(0, 9).Draw(t, "device")]
				q.remove(d)
				d.retryAt = time.Duration(rapid.IntRange(0, 20).Draw(t, "at"))
				q.add(d)
				there[d] = true
			},
			"remove": func(t *rapid.T) {
				d := &devices[rapid.IntRange(0, 9).Draw(t, "device")]
				q.remove(d)
				delete(there, d)
			},
			"": func(t *rapid.T) {
				first := q.first()
				if (first == nil) != (len(there) == 0) || len(q.byTime) != len(there) {
					t.Fatalf("%d instead of %d", len(q.byTime), len(there))
				}
				for d := range there {
					if first.retryAt > d.retryAt {
						t.Fatalf("%s is before %s", first.retryAt, d.retryAt)
					}
				}
			},
		})
	})
}

// manyAway is a room with ten thousand devices whose lines are not open, and a
// command for each.
func manyAway(t fataler) *rig {
	r := newRig(t)
	r.cfg.Max, r.box.size = 20000, 1<<30
	for i := range 10000 {
		r.lines[fmt.Sprint("d", i)] = &line{away: true}
	}
	r.start()
	for i := range 10000 {
		q := write(fmt.Sprint("d", i), "p")
		q.Timeout = Duration(time.Hour)
		r.submit(q)
	}
	r.turn()
	return r
}

func TestTenThousandDevicesThatAreAwayHoldNobodyUp(t *testing.T) {
	r := manyAway(t)
	asked := func() (n int) {
		for _, l := range r.lines {
			n += l.asks
		}
		return n
	}
	began, before := r.clock.up, asked()
	for r.clock.up < began+20*time.Second {
		earlier := asked()
		_, pause := r.step()
		if n := asked() - earlier; n > 1000 {
			t.Fatalf("%d lines were asked while everybody waited", n)
		}
		r.clock.pass(pause)
	}
	if n := asked() - before; n < 12*10000 || n > 15*10000 { // 5 times in the first 3 s, then each 2 s
		t.Errorf("lines were asked %d times in 20 s", n)
	}
	for i := range 10000 {
		r.lines[fmt.Sprint("d", i)].away = false
	}
	r.clock.pass(maxAway)
	for range 11 {
		r.turn()
	}
	for i := range 10000 {
		if len(r.lines[fmt.Sprint("d", i)].jobs) != 1 {
			t.Fatalf("d%d got no command", i)
		}
	}
}

func BenchmarkALookAtTenThousandDevicesThatAreAway(b *testing.B) {
	r := manyAway(b)
	for b.Loop() {
		r.clock.pass(maxAway)
		r.step()
	}
}
