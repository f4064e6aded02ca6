package scheduler

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestAMeterShowsUtilisationAndRateOfTheLastHalfToWholeMinute(t *testing.T) {
	var m meter
	start := time.Unix(1e9, 0)
	show := func(after time.Duration, capacity int) (s Status) {
		m.show(start.Add(after), capacity, &s)
		return s
	}
	if s := show(0, 1); s.Utilisation != 0 || s.TransactionsPerSecond != 0 || s.Lateness != (Lateness{}) {
		t.Errorf("at first it shows %+v", s)
	}
	for i := range 200 { // 10 a second, of 50 ms each
		m.transaction(start.Add(time.Duration(i+1)*100*time.Millisecond), 50*time.Millisecond)
	}
	if s := show(20*time.Second, 1); !near(s.Utilisation, 0.5) || !near(s.TransactionsPerSecond, 10) {
		t.Errorf("after 20 s: %v, %v/s", s.Utilisation, s.TransactionsPerSecond)
	}
	if s := show(20*time.Second, 4); !near(s.Utilisation, 0.125) {
		t.Errorf("of four at a time: %v", s.Utilisation)
	}
	if s := show(40*time.Second, 1); !near(s.Utilisation, 0.25) || !near(s.TransactionsPerSecond, 5) {
		t.Errorf("after 40 s: %v, %v/s", s.Utilisation, s.TransactionsPerSecond)
	}
	if s := show(61*time.Second, 1); s.Utilisation != 0 || s.TransactionsPerSecond != 0 {
		t.Errorf("after 61 s: %v, %v/s", s.Utilisation, s.TransactionsPerSecond)
	}
	m.transaction(start.Add(62*time.Second), time.Hour)
	if s := show(63*time.Second, 1); s.Utilisation != 1 {
		t.Errorf("utilisation of a transaction that began long ago: %v", s.Utilisation)
	}
	if s := show(time.Hour, 1); s.Utilisation != 0 {
		t.Errorf("an hour later: %v", s.Utilisation)
	}
}

func TestAMeterLooksAtHalfAMinuteAtLeastAndAMinuteAtMost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m meter
		start := time.Unix(1e9, 0)
		now := start
		var at []time.Time
		for _, gap := range rapid.SliceOfN(rapid.IntRange(0, 100_000), 1, 50).Draw(t, "gaps") {
			now = now.Add(time.Duration(gap) * time.Millisecond)
			m.transaction(now, 0)
			at = append(at, now)
			shown := float64(m.now.transactions + m.before.transactions)
			least, most := 0.0, 0.0
			for _, a := range at {
				if now.Sub(a) <= meterWindow {
					least++
				}
				if now.Sub(a) <= 2*meterWindow {
					most++
				}
			}
			if shown < least-1 || shown > most {
				t.Fatalf("it shows %v, of %v in half a minute and %v in a whole one", shown, least, most)
			}
		}
	})
}

func TestLatenessIsWithinItsBucket(t *testing.T) {
	var m meter
	now := time.Unix(1e9, 0)
	late := func(n int, d time.Duration) {
		for range n {
			m.round(now, d)
		}
	}
	show := func() Lateness {
		var s Status
		m.show(now, 1, &s)
		return s.Lateness
	}
	late(1, 300*time.Microsecond)
	if got := show(); got != (Lateness{P50: 0.3, P99: 0.3, Max: 0.3}) {
		t.Errorf("one round: %+v", got)
	}
	late(98, 900*time.Microsecond)
	late(1, 15*time.Millisecond)
	if got := show(); got != (Lateness{P50: 1, P99: 1, Max: 15}) {
		t.Errorf("one of a hundred is late: %+v", got)
	}
	late(1, 15*time.Millisecond)
	if got := show(); got != (Lateness{P50: 1, P99: 15, Max: 15}) {
		t.Errorf("two of 101 are late: %+v", got)
	}
	late(100, 90*time.Second)
	if got := show(); got != (Lateness{P50: 20, P99: 90_000, Max: 90_000}) && got.P99 != 90_000 {
		t.Errorf("beyond all buckets: %+v", got)
	}
}

func TestQuantilesAreUpperBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		m := meter{now: w}
		now := time.Unix(1e9, 0)
		list := rapid.SliceOfN(rapid.Int64Range(0, int64(2*time.Minute)), 1, 200).Draw(t, "late")
		for _, d := range list {
			m.round(now, time.Duration(d))
		}
		for _, q := range []float64{0.5, 0.99} {
			bound, below := m.now.quantile(q), 0
			for _, d := range list {
				if milliseconds(time.Duration(d)) <= bound {
					below++
				}
			}
			if float64(below) < q*float64(len(list)) {
				t.Fatalf("%v of %d are within %v ms, which is said of %v", below, len(list), bound, q)
			}
		}
	})
}
