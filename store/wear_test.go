package store

import (
	"testing"
	"time"
)

func TestWearIsEstimatedByTheLastHours(t *testing.T) {
	const mega = 1 << 20
	now := time.Now()
	var w wear
	w.note(now, 0)
	if got := w.perDay(now.Add(30*time.Second), mega); got != 0 {
		t.Errorf("after half a minute: %d", got)
	}
	written := uint64(0)
	write := func(d time.Duration, perMinute uint64) {
		for range int(d / time.Minute) {
			now = now.Add(time.Minute)
			written += perMinute
			w.note(now, written)
		}
	}
	near := func(when string, want uint64) {
		t.Helper()
		if got := w.perDay(now, written); got < want*95/100 || got > want*105/100 {
			t.Errorf("%s: %d MiB a day, want %d", when, got/mega, want/mega)
		}
	}
	write(10*time.Minute, mega)
	near("after ten minutes", 1440*mega)
	write(24*time.Hour, 2*mega)
	near("after a day at twice the rate", 2880*mega)
	if len(w.samples) > 40 {
		t.Errorf("%d samples", len(w.samples))
	}
	now = now.Add(3 * time.Hour)
	near("after three idle hours", 0)
	if got := w.perDay(now.Add(-90*time.Minute), written); got < 1400*mega || got > 1480*mega {
		t.Errorf("after an hour and a half: %d MiB", got/mega)
	}
	now = now.Add(7 * 24 * time.Hour)
	near("after an idle week", 0)
	write(3*time.Hour, mega)
	near("busy again", 1440*mega)
}
