package modbus

import (
	"slices"
	"time"
)

// guard remembers the requests that timed out, for as long as their replies may
// still come. An RTU reply does not say which request it answers: a late one
// passes for the reply to the next request of the same unit, function and
// length, so those wait. It holds one entry for each kind of request at most.
type guard struct {
	lasts   time.Duration
	entries []lateReply
}

type lateReply struct {
	unit     byte
	function Function
	size     int
	until    time.Time
}

// add notes that r timed out now.
func (g *guard) add(unit byte, r Request, now time.Time) {
	g.expire(now)
	if g.lasts <= 0 {
		return
	}
	late := lateReply{unit: unit, function: r.Function(), size: r.size, until: now.Add(g.lasts)}
	g.entries = append(slices.DeleteFunc(g.entries, late.sameKind), late)
}

// until is when r may be sent, or the zero time when at once.
func (g *guard) until(unit byte, r Request, now time.Time) time.Time {
	g.expire(now)
	asked := lateReply{unit: unit, function: r.Function(), size: r.size}
	if i := slices.IndexFunc(g.entries, asked.sameKind); i >= 0 {
		return g.entries[i].until
	}
	return time.Time{}
}

// mayRefuse tells whether an exception to r could be meant for a request that
// timed out: an exception has the same length whatever was asked.
func (g *guard) mayRefuse(unit byte, r Request, now time.Time) bool {
	g.expire(now)
	return slices.ContainsFunc(g.entries, func(l lateReply) bool { return l.unit == unit && l.function == r.Function() })
}

func (g *guard) expire(now time.Time) {
	g.entries = slices.DeleteFunc(g.entries, func(l lateReply) bool { return !now.Before(l.until) })
}

func (l lateReply) sameKind(other lateReply) bool {
	return l.unit == other.unit && l.function == other.function && l.size == other.size
}
