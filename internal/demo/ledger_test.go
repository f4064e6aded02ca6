package demo

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestTheLedgerFindsWhatWasLostRepeatedAndOutOfOrder(t *testing.T) {
	for name, c := range map[string]struct {
		sent, received []uint64
		want           Report
	}{
		"all well":         {[]uint64{1, 2, 3}, []uint64{1, 2, 3}, Report{3, 3, 0, 0, 0}},
		"one lost":         {[]uint64{1, 2, 3}, []uint64{1, 3}, Report{3, 2, 1, 0, 0}},
		"one repeated":     {[]uint64{1, 2, 3}, []uint64{1, 2, 1, 2, 3}, Report{3, 3, 0, 2, 0}},
		"out of order":     {[]uint64{1, 2, 3}, []uint64{1, 3, 2}, Report{3, 3, 0, 0, 1}},
		"one made up":      {[]uint64{1, 2}, []uint64{1, 2, 9}, Report{2, 2, 0, 0, 1}},
		"nothing received": {[]uint64{1, 2}, nil, Report{2, 0, 2, 0, 0}},
	} {
		l := newLedger()
		for _, n := range c.sent {
			l.sent("d", n)
		}
		for _, n := range c.received {
			l.received("d", n)
		}
		if got := l.report(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestAnAnswerAtItsTimeOutCountsOnlyIfItArrived(t *testing.T) {
	l := newLedger()
	l.sent("d", 1)
	l.perhapsSent("d", 2)
	l.perhapsSent("d", 3)
	l.received("d", 1)
	l.received("d", 3)
	if got, want := l.report(), (Report{2, 2, 0, 0, 0}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestAnySetOfNumbersIsCountedRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOfDistinct(rapid.Uint64Range(0, 5000), rapid.ID).Draw(t, "numbers")
		kept := rapid.SliceOfDistinct(rapid.SampledFrom(append(numbers, 6000)), rapid.ID).Draw(t, "kept")
		l := newLedger()
		for _, n := range numbers {
			l.sent("d", n)
		}
		got := uint64(0)
		for _, n := range kept {
			l.received("d", n)
			if slices.Contains(numbers, n) {
				got++
			}
		}
		if r := l.report(); r.Produced != uint64(len(numbers)) || r.Delivered != got || r.Lost != uint64(len(numbers))-got {
			t.Fatalf("%+v", r)
		}
	})
}
