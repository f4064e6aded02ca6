package wire

import (
	"slices"
	"sync"
	"time"
)

// Log keeps what is said on a line; its Note is a Config.OnTalk. It may be used
// concurrently, and its zero value is ready.
type Log struct {
	mu    sync.Mutex
	talks Talks
}

// Note adds a talk.
func (l *Log) Note(t Talk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.talks = append(l.talks, t)
}

// Talks returns what was said so far, by when it began.
func (l *Log) Talks() Talks {
	l.mu.Lock()
	talks := slices.Clone(l.talks)
	l.mu.Unlock()
	slices.SortStableFunc(talks, func(a, b Talk) int { return a.Began.Compare(b.Began) })
	return talks
}

// Talks is what was said on a line, by when it began.
type Talks []Talk

// Where returns those that are wanted.
func (ts Talks) Where(wanted func(Talk) bool) Talks {
	var some Talks
	for _, t := range ts {
		if wanted(t) {
			some = append(some, t)
		}
	}
	return some
}

// By returns what one station said.
func (ts Talks) By(who string) Talks {
	return ts.Where(func(t Talk) bool { return t.Who == who })
}

// Within returns what began in [from, to).
func (ts Talks) Within(from, to time.Time) Talks {
	return ts.Where(func(t Talk) bool { return !t.Began.Before(from) && t.Began.Before(to) })
}

// Requests returns what a master asked a unit: talks that begin with its number.
func (ts Talks) Requests(master string, unit byte) Talks {
	return ts.Where(func(t Talk) bool { return t.Who == master && t.Bytes[0] == unit })
}

// Garbled is how many were, because another spoke at the same time.
func (ts Talks) Garbled() int {
	return len(ts.Where(func(t Talk) bool { return t.Garbled }))
}

// ShortestGap is the shortest time between the end of one and the beginning of
// the next, negative where they overlap; false for fewer than two.
func (ts Talks) ShortestGap() (gap time.Duration, ok bool) {
	var end time.Time
	for i, t := range ts {
		if i > 0 {
			if g := t.Began.Sub(end); !ok || g < gap {
				gap, ok = g, true
			}
		}
		if t.Ended.After(end) {
			end = t.Ended
		}
	}
	return gap, ok
}

// Periods are the distances between the beginnings of each and the next.
func (ts Talks) Periods() []time.Duration {
	var periods []time.Duration
	for i := 1; i < len(ts); i++ {
		periods = append(periods, ts[i].Began.Sub(ts[i-1].Began))
	}
	return periods
}

// Utilisation is the share of the time from the first to the end of the last in
// which somebody spoke; 0 for none.
func (ts Talks) Utilisation() float64 {
	if len(ts) == 0 {
		return 0
	}
	var busy time.Duration
	end := ts[0].Began
	for _, t := range ts {
		if t.Ended.After(end) {
			busy += t.Ended.Sub(t.Began) - max(end.Sub(t.Began), 0)
			end = t.Ended
		}
	}
	return float64(busy) / float64(end.Sub(ts[0].Began))
}
