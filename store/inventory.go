package store

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// inventory is what will be taken over from a wreck, and what is known to be
// missing.
type inventory struct {
	w       *wreck
	pieces  []piece
	names   map[uint32]SourceKey
	devices map[deviceKey]*deviceTally
	numbers map[uint32]uint64 // last of each device, by its id in the checkpoint
	marks   map[uint32]uint64 // last of each channel
	holes   []hole
	lost    map[uint64][]loss1 // gaps to be announced, by the hole's from; 0: behind the end
	lastID  uint32             // of a source
	end     uint64             // position of the last record that there ever was, as far as is known
	report  Report
	strays  map[uint32]*NamelessReport
}

// loss1 is one gap of a device.
type loss1 struct {
	device *deviceTally
	gap    record.Gap
}

// takeInventory reads all records once.
func takeInventory(w *wreck, h *hearing, treeEnd uint64) (*inventory, error) {
	inv := &inventory{
		w: w, names: make(map[uint32]SourceKey), devices: make(map[deviceKey]*deviceTally), numbers: make(map[uint32]uint64),
		marks: make(map[uint32]uint64), lost: make(map[uint64][]loss1), strays: make(map[uint32]*NamelessReport),
	}
	inv.pick()
	passed := inv.passed()
	var err error
	if inv.pieces, err = w.choose(passed, treeEnd); err != nil {
		return nil, err
	}
	inv.end = max(inv.end, w.position)
	if n := len(inv.pieces); n > 0 {
		inv.end = max(inv.end, inv.pieces[n-1].to)
	}
	if h.ok && h.end > inv.end && (w.about == nil || h.epoch == w.about.epoch) {
		inv.report.Behind = h.end - inv.end
	}
	inv.findHoles(passed)
	for i := range inv.pieces {
		if err := inv.count(&inv.pieces[i]); err != nil {
			return nil, err
		}
	}
	inv.missingAtEnd()
	inv.fillReport()
	return inv, nil
}

// pick leaves out what only old pages hold although the tree has shown all of its
// kind.
func (inv *inventory) pick() {
	w := inv.w
	for id, f := range w.sources {
		if key, ok := decodeSource(f.value); ok && !f.doubted {
			inv.names[id] = key
		}
		inv.lastID = max(inv.lastID, id)
	}
	drop := func(bucket string, f found) bool { return !f.now && !w.lacks(bucket) }
	maps.DeleteFunc(w.channels, func(_ uint32, f found) bool { return f.doubted || drop(channelBucket, f) })
	maps.DeleteFunc(w.cursors, func(_ string, f found) bool { return drop(cursorBucket, f) })
	maps.DeleteFunc(w.mail, func(_ string, f found) bool { return drop(mailboxBucket, f) })
	for name, list := range w.gaps {
		w.gaps[name] = slices.DeleteFunc(list, func(f found) bool { return drop(gapBucket, f) })
	}
	decodeCheckpoint(w.checkpoint,
		func(id uint32, last uint64) { inv.numbers[id] = last },
		func(id uint32, last uint64) { inv.marks[id] = last })
	le := binary.LittleEndian
	for _, f := range w.cursors {
		inv.end = max(inv.end, le.Uint64(f.value), le.Uint64(f.value[8:]))
	}
}

// passed is up to where all cursors have acknowledged. Without one, nothing is.
func (inv *inventory) passed() uint64 {
	if len(inv.w.cursors) == 0 {
		return 0
	}
	passed := ^uint64(0)
	for _, f := range inv.w.cursors {
		passed = min(passed, binary.LittleEndian.Uint64(f.value))
	}
	return passed
}

// missing are a cursor's stretches that it knows to be missing.
func (inv *inventory) missing(name string) (list []missing) {
	byFrom := make(map[uint64]missing)
	for _, f := range inv.w.gaps[name] {
		found, _ := decodeMissing(f.value, maxID)
		for _, m := range found {
			m.gaps = slices.DeleteFunc(m.gaps, func(g deviceGap) bool { _, known := inv.names[g.device]; return !known })
			if old, ok := byFrom[m.from]; !ok || m.to > old.to {
				byFrom[m.from] = m
			}
		}
	}
	for _, from := range slices.Sorted(maps.Keys(byFrom)) {
		if m := byFrom[from]; len(list) == 0 || m.from >= list[len(list)-1].to {
			list = append(list, m)
		}
	}
	return list
}

// findHoles: what was dropped on purpose is none.
func (inv *inventory) findHoles(passed uint64) {
	from := passed + 1
	if len(inv.w.cursors) == 0 {
		if len(inv.pieces) > 0 {
			from = inv.pieces[0].from
		} else {
			from = inv.end + 1
		}
		inv.report.Before = from - 1
	}
	for _, h := range holes(inv.pieces, from, inv.end) {
		if !inv.dropped(h) {
			inv.holes = append(inv.holes, h)
			inv.report.Missing += h.to - h.from + 1
		}
	}
}

func (inv *inventory) dropped(h hole) bool {
	for name := range inv.w.cursors {
		for _, m := range inv.missing(name) {
			if m.from < h.from && h.to <= m.to {
				return true
			}
		}
	}
	return false
}

// count looks at each record of a piece.
func (inv *inventory) count(p *piece) error {
	value, err := inv.w.segment(p)
	if err != nil {
		return err
	}
	known := inv.lastID + 1
	var walk walker
	h, ok := parseHeader(value)
	if ok {
		walk = walkHeader(&h, value, known)
		rest := value[headerSize+h.records:]
		if checksum(rest) == h.marksum {
			parseMarks(rest, func(m mark) { inv.marks[m.channel] = max(inv.marks[m.channel], m.last) })
		}
	} else {
		walk = walkDamaged(value, p.from, p.to+1, known)
	}
	var e envelope
	for {
		what, lost := walk.next(&e)
		switch what {
		case stepEnd:
			return nil
		case stepDamaged:
			inv.report.Bad += lost
			inv.sawDamaged(&e, walk.pos)
		case stepRecord:
			inv.saw(&e, walk.pos)
		}
	}
}

// sawDamaged: a record that will be announced as damaged, as it looks like the next
// one of its device, leaves no further gap.
func (inv *inventory) sawDamaged(e *envelope, position uint64) {
	key, named := inv.names[e.source]
	if e.source == 0 || e.gap || !named || key.Agent != "" {
		return
	}
	if d := inv.device(key, e.source); d.seen == 0 || e.seq == d.seen+1 {
		d.seen, d.position = e.seq, position
	}
}

func (inv *inventory) saw(e *envelope, position uint64) {
	inv.lastID = max(inv.lastID, e.source)
	key, named := inv.names[e.source]
	if !named {
		inv.stray(e)
		return
	}
	inv.report.Saved++
	d := inv.device(key, e.source)
	d.add(e)
	if e.gap || key.Agent != "" {
		return
	}
	if d.seen != 0 && e.seq > d.seen+1 {
		gap := record.Gap{From: d.seen + 1, To: e.seq - 1, Count: e.seq - 1 - d.seen, Reason: record.GapDamage, First: fromNanos(d.time), Last: fromNanos(e.time)}
		inv.lose(d, gap, position)
	}
	d.seen, d.position, d.time = max(d.seen, e.seq), position, e.time
}

func (inv *inventory) stray(e *envelope) {
	n := inv.strays[e.source]
	if n == nil {
		n = &NamelessReport{Source: e.source}
		inv.strays[e.source] = n
	}
	n.Records++
	widenTimes(&n.From, &n.To, e.time)
	inv.report.Nameless++
}

func (inv *inventory) device(key SourceKey, id uint32) *deviceTally {
	dk := deviceKey{key.Agent, key.Epoch, key.Device}
	d := inv.devices[dk]
	if d == nil {
		d = &deviceTally{DeviceReport: DeviceReport{Agent: key.Agent, Epoch: key.Epoch.String(), Device: key.Device}, id: id}
		inv.devices[dk] = d
	}
	return d
}

// lose notes what is missing before a position: in the last hole before it, or
// behind everything if there is none that has room.
func (inv *inventory) lose(d *deviceTally, gap record.Gap, position uint64) {
	d.lacks(gap)
	for _, h := range slices.Backward(inv.holes) {
		if h.to < position && h.to > d.position {
			if list := inv.lost[h.from]; uint64(len(list)) <= h.to-h.from {
				inv.lost[h.from] = append(list, loss1{d, gap})
				return
			}
		}
	}
	inv.lost[0] = append(inv.lost[0], loss1{d, gap})
}

// missingAtEnd compares the last numbers found with those of the table. Of a device
// of which no record is left nobody knows whether any was still to be delivered.
func (inv *inventory) missingAtEnd() {
	for id, last := range inv.numbers {
		key, named := inv.names[id]
		if !named || key.Agent != "" {
			continue
		}
		d := inv.devices[deviceKey{key.Agent, key.Epoch, key.Device}]
		if d == nil || d.seen == 0 || last <= d.seen {
			continue
		}
		inv.lose(d, record.Gap{
			From: d.seen + 1, To: last, Count: last - d.seen, Reason: record.GapDamage, First: fromNanos(d.time), Last: fromNanos(d.time),
		}, ^uint64(0))
		d.seen = last
	}
}

func (inv *inventory) fillReport() {
	r := &inv.report
	r.Time, r.Bytes, r.BadPages, r.Channels = time.Now().UTC(), inv.w.size, inv.w.damaged, len(inv.w.channels)
	for _, d := range inv.devices {
		r.Devices = append(r.Devices, d.DeviceReport)
	}
	sortReports(r.Devices)
	for _, id := range slices.Sorted(maps.Keys(inv.strays)) {
		r.NamelessSources = append(r.NamelessSources, *inv.strays[id])
	}
	r.Cursors = slices.Sorted(maps.Keys(inv.w.cursors))
	inv.countMail()
}

func (inv *inventory) countMail() {
	for _, f := range inv.w.mail {
		if f.doubted {
			inv.report.Doubted++
		} else {
			inv.report.Letters++
		}
	}
}
