package serial

import (
	"math"
	"testing"
	"unsafe"
)

// uart is a driver that counts, or has gone.
type uart struct {
	counts icount
	gone   bool
}

func (u *uart) icount() (icount, bool) { return u.counts, !u.gone }

func TestLineErrorsAddUpOverLinesThatComeAndGo(t *testing.T) {
	var sum tally
	first := &uart{counts: icount{parity: 100, framing: math.MaxUint32}}
	sum.opened(first)
	if got := sum.counters(); got != (Counters{}) {
		t.Errorf("what happened before counts: %+v", got)
	}
	first.counts.parity += 2
	first.counts.framing += 3 // past the end of 32 bits
	sum.counters()
	first.counts.overrun++
	sum.closing(first)
	first.counts.overrun++ // somebody else's

	second := &uart{}
	sum.opened(second) // a new adapter counts from 0
	second.counts = icount{breaks: 5, bufferOverrun: 6}
	sum.badEcho()
	want := Counters{Parity: 2, Framing: 3, Overrun: 1, Break: 5, BufferOverrun: 6, Echo: 1}
	for range 2 {
		if got := sum.counters(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	second.gone = true
	sum.closing(second)
	if got := sum.counters(); got != want || len(sum.open) != 0 {
		t.Errorf("after unplugging: %+v, %d lines", got, len(sum.open))
	}
}

func TestTheKernelsCountersAreReadFromTheirPlaces(t *testing.T) {
	// cts, dsr, rng, dcd, rx, tx, frame, overrun, parity, brk, buf_overrun.
	words := [20]uint32{6: 1, 7: 2, 8: 3, 9: 4, 10: 5}
	var got Counters
	got.add(icount{}, *(*icount)(unsafe.Pointer(&words)))
	if want := (Counters{Framing: 1, Overrun: 2, Parity: 3, Break: 4, BufferOverrun: 5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestALineWhoseDriverDoesNotCountHasNoErrors(t *testing.T) {
	far, path := pair(t)
	d := NewDialer(path, settings())
	conn := dial(t, d, framer())
	reads(t, conn, far)
	for range 2 {
		if got := d.Counters(); got != (Counters{}) {
			t.Errorf("%+v", got)
		}
		conn.Close()
	}
}
