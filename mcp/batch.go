package mcp

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mcp-edge/edge-agent/transport"
)

// allowance is what the receiver has room for now.
type allowance struct {
	records, bytes int // left of the window
	payload        int // largest payload
	idle           bool
	full           bool // the link takes nothing now but what replaces something lost
}

// batch is what appendFrame has put into one PUBLISH.
type batch struct {
	records  int
	size     int    // bytes, as the window counts them
	last     uint64 // number
	repeated bool   // some of it was sent before
	missing  bool   // all of it counts as sent already
}

// appendFrame appends one PUBLISH to dst if there is something to send and the
// allowance permits; else the batch has no records.
func (o *Outbox) appendFrame(dst []byte, version uint8, a allowance) ([]byte, batch, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !o.open:
		return dst, batch{}, nil
	case o.cfg.BestEffort:
		return o.appendOnce(dst, version, a)
	case len(o.missing) > 0:
		return o.appendMissing(dst, version, a)
	case a.full || o.sent == o.count():
		return dst, batch{}, nil
	}
	explicit := o.behind && o.sent == 0
	perRecord := 0
	if explicit {
		perRecord = 10 // the most that a number takes
	}
	b := o.fill(o.sent, o.count(), perRecord, a)
	if b.records == 0 {
		if a.idle && a.records > 0 { // waiting will not help
			return dst, b, fmt.Errorf("%w: record %d of channel %s is larger than the peer or a datagram takes", transport.ErrTooLarge, o.base+uint64(o.sent)+1, o.cfg.Channel)
		}
		return dst, b, nil
	}
	previous := o.base + uint64(o.sent)
	var numbers []uint64
	if explicit {
		o.behind = false
		for i := range b.records {
			numbers = append(numbers, previous+uint64(i)+1)
		}
		previous = o.fits
	}
	b.repeated = o.sent < o.ever
	dst, err := o.appendBatch(dst, version, previous, numbers, o.sentBytes, b)
	if err != nil {
		return dst, batch{}, err
	}
	o.sent += b.records
	o.sentBytes += b.size
	o.ever = max(o.ever, o.sent)
	return dst, b, nil
}

// appendMissing sends a span again, or its first part. It is within the window
// already.
func (o *Outbox) appendMissing(dst []byte, version uint8, a allowance) ([]byte, batch, error) {
	s := &o.missing[0]
	from, to := int(s.from-1-o.base), int(s.to-o.base)
	a.records, a.bytes = to-from, a.payload
	b := o.fill(from, to, 0, a)
	b.repeated, b.missing = true, true
	if b.records == 0 { // the peer takes less than it did: the time-out is left to complain
		o.missing = o.missing[:0]
		return dst, b, nil
	}
	dst, err := o.appendBatch(dst, version, s.from-1, nil, o.bytes(from), b)
	if s.from += uint64(b.records); s.from > s.to {
		o.missing = append(o.missing[:0], o.missing[1:]...)
	}
	return dst, b, err
}

// appendOnce sends best-effort records and forgets them. What no PUBLISH carries
// is dropped: nobody waits for it.
func (o *Outbox) appendOnce(dst []byte, version uint8, a allowance) ([]byte, batch, error) {
	a.records, a.bytes = MaxBatch, a.payload
	for o.count() > 0 {
		b := o.fill(0, o.count(), 0, a)
		if b.records == 0 {
			o.remove(1)
			o.stats.Dropped++
			continue
		}
		dst, err := o.appendBatch(dst, version, o.base, nil, 0, b)
		o.remove(b.records)
		o.stats.Sent += uint64(b.records)
		return dst, b, err
	}
	return dst, batch{}, nil
}

// fill says how many of the records kept, from the one at from to before the one
// at to, go into one PUBLISH.
func (o *Outbox) fill(from, to, perRecord int, a allowance) (b batch) {
	sizes := o.sizes[o.first+from : o.first+to]
	room := min(a.payload-o.overhead(), a.bytes, max(o.cfg.BatchBytes, int(sizes[0])))
	for _, size := range sizes[:min(len(sizes), max(a.records, 0), MaxBatch)] {
		if b.size+int(size)+(b.records+1)*perRecord > room {
			break
		}
		b.records++
		b.size += int(size)
	}
	b.last = o.base + uint64(from+b.records)
	return b
}

// appendBatch appends the PUBLISH; b's records begin offset bytes behind the
// first one kept.
func (o *Outbox) appendBatch(dst []byte, version uint8, previous uint64, numbers []uint64, offset int, b batch) ([]byte, error) {
	start := len(dst)
	dst = beginFrame(dst, version, CommandPublish)
	records := o.data[o.head+offset : o.head+offset+b.size]
	if o.cfg.BestEffort {
		dst = AppendBestEffort(dst, o.cfg.Channel, previous, records)
	} else {
		dst = AppendPublish(dst, o.cfg.Channel, previous, numbers, records)
	}
	return endFrame(dst, start)
}

// overhead is how many bytes of a payload are not records, at most.
func (o *Outbox) overhead() int {
	n := 1 + protowire.SizeBytes(len(o.cfg.Channel)) + 1 + protowire.SizeVarint(1<<63) + 1 + protowire.SizeVarint(MaxPayloadV2)
	if o.cfg.BestEffort {
		n += 2
	}
	return n
}

// recordOverhead is how many of room bytes are tag and length of a record that
// takes all of them.
func recordOverhead(room int) int { return 1 + protowire.SizeVarint(uint64(max(room, 0))) }
