package store

import "time"

// wear estimates how much is written a day: at the rate of the last three hours, or
// since Open if that is shorter. Nothing is said of less than a minute.
type wear struct {
	samples []wearSample // in the order of time; of the first, nothing was written before
}

type wearSample struct {
	at      time.Time
	written uint64
}

const (
	wearSpan  = 3 * time.Hour
	wearStep  = 5 * time.Minute // between samples, at least
	wearLeast = time.Minute
)

// note takes a sample when one is due. It is called with each commit, so that an idle
// store does nothing.
func (w *wear) note(now time.Time, written uint64) {
	if n := len(w.samples); n > 0 && now.Sub(w.samples[n-1].at) < wearStep {
		return
	}
	w.samples = append(w.samples, wearSample{now, written})
	if base := w.base(now); base > 0 {
		w.samples = append(w.samples[:0], w.samples[base:]...)
	}
}

// base is the newest sample that is wearSpan old, or the oldest one.
func (w *wear) base(now time.Time) (i int) {
	for i+1 < len(w.samples) && now.Sub(w.samples[i+1].at) >= wearSpan {
		i++
	}
	return i
}

// perDay is the estimate in bytes. Between two samples the rate counts as steady.
func (w *wear) perDay(now time.Time, written uint64) uint64 {
	if len(w.samples) == 0 {
		return 0
	}
	i := w.base(now)
	from, next := w.samples[i], wearSample{now, written}
	if i+1 < len(w.samples) {
		next = w.samples[i+1]
	}
	if early := now.Add(-wearSpan).Sub(from.at); early > 0 {
		share := float64(early) / float64(next.at.Sub(from.at))
		from = wearSample{from.at.Add(early), from.written + uint64(share*float64(next.written-from.written))}
	}
	passed := now.Sub(from.at)
	if passed < wearLeast {
		return 0
	}
	return uint64(float64(written-from.written) / passed.Hours() * 24)
}
