package scheduler

import "time"

// meterWindow is how long a meter looks at; it shows this one and the one
// before.
const meterWindow = 30 * time.Second

// latenessBuckets are upper bounds of what a round was late.
func latenessBuckets() [15]time.Duration {
	const ms = time.Millisecond
	return [...]time.Duration{
		ms, 2 * ms, 5 * ms, 10 * ms, 20 * ms, 50 * ms, 100 * ms, 200 * ms, 500 * ms,
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
	}
}

// meter measures what a line does, over the last half to whole minute.
type meter struct {
	now, before window
}

type window struct {
	since        time.Time
	busy         time.Duration
	transactions uint32
	late         [16]uint32 // rounds, by latenessBuckets; the last is beyond them
	latest       time.Duration
	left         uint32 // rounds of devices that answer, left out because they came too late
}

// turn is the window that now falls into.
func (m *meter) turn(now time.Time) *window {
	if m.now.since.IsZero() {
		m.now.since = now
	}
	if over := now.Sub(m.now.since) / meterWindow; over > 0 {
		since := m.now.since.Add(over * meterWindow)
		m.before = m.now
		if over > 1 { // nothing has happened in the window before this one
			m.before = window{since: since.Add(-meterWindow)}
		}
		m.now = window{since: since}
	}
	return &m.now
}

// transaction notes one that ended now and took so long.
func (m *meter) transaction(now time.Time, took time.Duration) {
	w := m.turn(now)
	w.transactions++
	w.busy += took
}

// round notes one that began so late.
func (m *meter) round(now time.Time, late time.Duration) {
	w := m.turn(now)
	buckets := latenessBuckets()
	i := 0
	for i < len(buckets) && late > buckets[i] {
		i++
	}
	w.late[i]++
	w.latest = max(w.latest, late)
}

// leave notes rounds that were left out because the line had no time for them.
func (m *meter) leave(now time.Time, rounds uint64) { m.turn(now).left += uint32(rounds) }

// share is how much of the time the line was in use, 0 to 1, as far as that is
// known: all of it in the first seconds.
func (m *meter) share() float64 {
	busy, elapsed := m.now.busy, time.Since(m.now.since)
	if !m.before.since.IsZero() {
		busy, elapsed = busy+m.before.busy, time.Since(m.before.since)
	}
	if elapsed < 10*time.Second {
		return 1
	}
	return float64(busy) / float64(elapsed)
}

// Lateness of rounds, in ms: how long after they fell due they began. P50 and P99 are
// upper bounds, from a histogram.
type Lateness struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// show fills in what the last half to whole minute has shown.
func (m *meter) show(now time.Time, capacity int, s *Status) {
	w := m.turn(now)
	since := w.since
	sum := *w
	if !m.before.since.IsZero() {
		since = m.before.since
		sum.busy += m.before.busy
		sum.transactions += m.before.transactions
		sum.latest = max(sum.latest, m.before.latest)
		sum.left += m.before.left
		for i, n := range m.before.late {
			sum.late[i] += n
		}
	}
	if elapsed := now.Sub(since); elapsed > 0 {
		s.Utilisation = min(float64(sum.busy)/float64(elapsed)/float64(capacity), 1)
		s.TransactionsPerSecond = float64(sum.transactions) / elapsed.Seconds()
	}
	if rounds := sum.rounds() + sum.left; rounds > 0 {
		s.LeftOut = float64(sum.left) / float64(rounds)
	}
	s.Lateness = Lateness{P50: sum.quantile(0.50), P99: sum.quantile(0.99), Max: milliseconds(sum.latest)}
}

// quantile is the upper bound of the bucket that q of all rounds reach, in ms.
// rounds that have begun.
func (w *window) rounds() (total uint32) {
	for _, n := range w.late {
		total += n
	}
	return total
}

func (w *window) quantile(q float64) float64 {
	total := w.rounds()
	buckets := latenessBuckets()
	seen := uint32(0)
	for i, n := range w.late {
		if seen += n; n > 0 && float64(seen) >= q*float64(total) {
			if i == len(buckets) {
				break
			}
			return milliseconds(min(buckets[i], w.latest))
		}
	}
	return milliseconds(w.latest)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
