package store

// walker goes through the records of one segment, over damage if need be.
type walker struct {
	rest  []byte // records to come
	pos   uint64 // of the record before rest
	last  uint64 // of the segment's last record
	known uint32 // source ids below this one exist: a hint in the search behind damage
}

// step is what walker.next came upon.
type step uint8

const (
	stepEnd     step = iota
	stepRecord       // e is a record, at pos
	stepDamaged      // lost records end at pos; e is the only one of them, as far as it can be guessed, or has source 0
)

// walkHeader starts at the front of a segment's value, whose header is good.
func walkHeader(h *header, value []byte, known uint32) walker {
	return walker{rest: value[headerSize:][:h.records], pos: h.first - 1, last: h.last(), known: known}
}

// walkDamaged does so when the header is not. first is the position in the
// segment's name, and next the first one of the segment behind it, 0 if there is
// none.
func walkDamaged(value []byte, first, next uint64, known uint32) walker {
	w := walker{rest: value[min(headerSize, len(value)):], pos: first - 1, last: next - 1, known: known}
	if next <= first {
		n, _ := countRecords(w.rest)
		w.last = w.pos + max(n, 1)
	}
	return w
}

// next moves over one record. lost is how many are unreadable in stepDamaged.
func (w *walker) next(e *envelope) (what step, lost uint64) {
	if w.pos >= w.last {
		return stepEnd, 0
	}
	if size := e.take(w.rest); size > 0 {
		w.rest = w.rest[size:]
		w.pos++
		return stepRecord, 0
	}
	lost = min(w.resync(e), w.last-w.pos)
	w.pos += lost
	return stepDamaged, lost
}

// skip moves to the record behind pos, checking what it passes: damage met now
// has to be counted as it was when those records were read.
func (w *walker) skip(pos uint64) {
	var e envelope
	for w.pos < pos {
		if what, _ := w.next(&e); what == stepEnd {
			return
		}
	}
}

// resync finds the next good record and tells how many are lost before it.
func (w *walker) resync(e *envelope) (lost uint64) {
	var next envelope
	content, _, size := frame(w.rest)
	if size > 0 && (size == len(w.rest) || next.take(w.rest[size:]) > 0) {
		// The length is good, so that only this record is bad.
		if !e.parse(content) || e.source >= w.known {
			*e = envelope{}
		}
		w.rest = w.rest[size:]
		return 1
	}
	*e = envelope{}
	left := w.last - w.pos
	for off := 1; off < len(w.rest); off++ {
		// Looking at the source first keeps this from computing checksums over
		// whatever lengths are read out of the middle of a record.
		if content, _, _ := frame(w.rest[off:]); content == nil || !next.parse(content) || next.source >= w.known {
			continue
		}
		if next.take(w.rest[off:]) == 0 {
			continue
		}
		w.rest = w.rest[off:]
		if n, whole := countRecords(w.rest); whole && n < left {
			return left - n
		}
		return 1
	}
	w.rest = nil
	return left
}

// countRecords counts good records up to the end of b, or to damage.
func countRecords(b []byte) (n uint64, whole bool) {
	var e envelope
	for len(b) > 0 {
		size := e.take(b)
		if size == 0 {
			return n, false
		}
		b = b[size:]
		n++
	}
	return n, true
}
