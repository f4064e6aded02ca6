package modbus

import (
	"bytes"
	"slices"
	"time"
)

// guard remembers the requests that timed out, for as long as their replies may
// still come. An RTU reply does not say which request it answers: a late one
// passes for the reply to the next request of the same unit, function and
// length, so those wait. It holds one entry for each kind of request at most.
//
// One that need not wait is the same read again after something garbled came:
// most likely that was the reply. If it was not, the reply says what was asked,
// only earlier.
type guard struct {
	lasts   time.Duration
	entries []lateReply
}

type lateReply struct {
	unit     byte
	function Function
	size     int
	until    time.Time
	again    []byte // the read that need not wait, nil for none
}

// add notes that r, sent at a time, was waited for in vain for timeout until now,
// and whether something garbled came meanwhile.
func (g *guard) add(unit byte, r Request, sent time.Time, timeout time.Duration, garbled bool, now time.Time) {
	g.expire(now)
	if g.lasts <= 0 {
		return
	}
	until := later(sent.Add(g.lasts), now.Add(min(timeout, g.lasts)))
	late := lateReply{unit: unit, function: r.Function(), size: r.size, until: until}
	if garbled && !r.changes() {
		late.again = r.pdu
	}
	g.entries = append(slices.DeleteFunc(g.entries, late.sameKind), late)
}

// until is when r may be sent, or the zero time when at once.
func (g *guard) until(unit byte, r Request, now time.Time) time.Time {
	if len(g.entries) == 0 {
		return time.Time{}
	}
	g.expire(now)
	asked := lateReply{unit: unit, function: r.Function(), size: r.size}
	if i := slices.IndexFunc(g.entries, asked.sameKind); i >= 0 && !bytes.Equal(g.entries[i].again, r.pdu) {
		return g.entries[i].until
	}
	return time.Time{}
}

// mayRefuse tells whether an exception to r could be meant for another request
// that timed out: an exception has the same length whatever was asked.
func (g *guard) mayRefuse(unit byte, r Request, now time.Time) bool {
	g.expire(now)
	return slices.ContainsFunc(g.entries, func(l lateReply) bool {
		return l.unit == unit && l.function == r.Function() && !bytes.Equal(l.again, r.pdu)
	})
}

// mayAnswer tells whether a good reply to r could be that to an earlier try.
func (g *guard) mayAnswer(unit byte, r Request) bool {
	return slices.ContainsFunc(g.entries, func(l lateReply) bool { return l.unit == unit && bytes.Equal(l.again, r.pdu) })
}

// came notes a reply that nobody waited for. If it is one that was remembered,
// nothing needs to wait for it any more.
func (g *guard) came(unit byte, pdu []byte) {
	if len(g.entries) == 0 || len(pdu) == 0 {
		return
	}
	late := lateReply{unit: unit, function: Function(pdu[0]), size: len(pdu)}
	g.entries = slices.DeleteFunc(g.entries, late.sameKind)
}

func (g *guard) expire(now time.Time) {
	g.entries = slices.DeleteFunc(g.entries, func(l lateReply) bool { return !now.Before(l.until) })
}

func (l lateReply) sameKind(other lateReply) bool {
	return l.unit == other.unit && l.function == other.function && l.size == other.size
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
