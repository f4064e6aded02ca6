package mcp

import "runtime"

// The pen's states. It is changed without mu, so that wake may be called by
// anyone, with or without it.
const (
	penFree  = iota // nobody writes
	penTaken        // somebody does
	penAgain        // and is to look once more for what is due
)

// takePen makes the caller the one who writes, or tells who does to look again.
func (s *Session) takePen() bool {
	for {
		switch s.pen.Load() {
		case penFree:
			if s.pen.CompareAndSwap(penFree, penTaken) {
				return true
			}
		case penTaken:
			if s.pen.CompareAndSwap(penTaken, penAgain) {
				return false
			}
		default:
			return false
		}
	}
}

// wake has what is due written, by somebody else than the caller.
func (s *Session) wake() {
	if s.takePen() {
		go s.writeSoon()
	}
}

func (s *Session) writeSoon() {
	runtime.Gosched()
	s.write()
}

// flush has what is due written, by the caller if nobody else writes. In a crowd
// it lets the others speak first, so that all of it leaves in one Write.
func (s *Session) flush(crowd bool) {
	if crowd {
		runtime.Gosched()
	}
	if s.takePen() {
		s.write()
	}
}

// lend is flush for a caller from outside, who must not wait for a slow peer:
// it writes once, no more than is sure to find room, and leaves the rest to
// a goroutine.
func (s *Session) lend(crowd bool) {
	if crowd {
		runtime.Gosched()
	}
	if !s.takePen() {
		return
	}
	ended, err := s.collect()
	if ended || err != nil || !s.w.sure {
		go s.carryOn(err)
		return
	}
	if len(s.w.buf) > 0 {
		s.lent.Store(s.w.writes)
		s.send()
		s.lent.Store(0)
	}
	if !s.rest() {
		go s.write()
	}
}

// carryOn goes on where lend has to stop.
func (s *Session) carryOn(err error) {
	switch {
	case err != nil:
		s.fail(err)
	case len(s.w.buf) > 0 && !s.ended():
		s.send()
	}
	s.write()
}
