package store

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/mcp-edge/edge-agent/record"
)

// maxReason is the longest reason of a gap that is kept.
const maxReason = 32

// maxGap is the most that appendGap appends.
const maxGap = 3*binary.MaxVarintLen64 + 16 + maxReason

func appendGap(b []byte, g *record.Gap) []byte {
	b = binary.AppendUvarint(b, g.From)
	b = binary.AppendUvarint(b, g.To)
	b = binary.AppendUvarint(b, g.Count)
	b = binary.LittleEndian.AppendUint64(b, uint64(nanos(g.First)))
	b = binary.LittleEndian.AppendUint64(b, uint64(nanos(g.Last)))
	return append(b, g.Reason[:min(len(g.Reason), maxReason)]...)
}

func parseGap(b []byte) (g record.Gap, ok bool) {
	for _, v := range []*uint64{&g.From, &g.To, &g.Count} {
		var n int
		if *v, n = binary.Uvarint(b); n <= 0 {
			return g, false
		}
		b = b[n:]
	}
	if len(b) < 16 {
		return g, false
	}
	g.First = fromNanos(int64(binary.LittleEndian.Uint64(b)))
	g.Last = fromNanos(int64(binary.LittleEndian.Uint64(b[8:])))
	g.Reason = string(b[16:])
	return g, true
}

// widen makes g cover more of the same device and reason.
func widen(g *record.Gap, more *record.Gap) {
	if g.Count == 0 {
		*g = *more
		return
	}
	g.Count += more.Count
	if more.From != 0 {
		g.To = max(g.To, more.To)
		if g.From == 0 || more.From < g.From {
			g.From = more.From
		}
	}
	if more.First.Before(g.First) {
		g.First = more.First
	}
	if more.Last.After(g.Last) {
		g.Last = more.Last
	}
}

// maxStretches bounds how many a cursor has for alternating reasons.
const maxStretches = 16

// missing is a stretch of the log that a cursor will not get.
type missing struct {
	from, to uint64 // positions after from, up to to
	told     bool   // handing it out has begun: it does not grow any more
	reason   string // why it grows
	records  uint64 // that the cursor would have taken
	gaps     []deviceGap
}

// deviceGap is what is missing of one device, for one reason.
type deviceGap struct {
	device uint32
	gap    record.Gap
}

// position of the i-th gap, among those of the stretch: the last one stands at its
// end, so that to acknowledge it is to acknowledge the stretch. There is room,
// as each gap stands for one record at least.
func (m *missing) position(i int) uint64 { return m.to - uint64(len(m.gaps)-1-i) }

// lose adds a record, or a gap record, to what is missing.
func (m *missing) lose(device uint32, e *envelope, reason string) {
	gap := record.Gap{From: e.seq, To: e.seq, Count: 1, Reason: reason, First: fromNanos(e.time), Last: fromNanos(e.time)}
	if e.gap {
		// A gap record that is dropped lives on in this one's list.
		if g, ok := parseGap(e.body); ok {
			gap = g
		}
	} else {
		m.records++
	}
	m.add(device, gap)
}

func (m *missing) add(device uint32, gap record.Gap) {
	i, found := slices.BinarySearchFunc(m.gaps, deviceGap{device, gap}, compareGaps)
	if !found {
		m.gaps = slices.Insert(m.gaps, i, deviceGap{device: device, gap: record.Gap{Reason: gap.Reason}})
	}
	widen(&m.gaps[i].gap, &gap)
}

func compareGaps(a, b deviceGap) int {
	return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.gap.Reason, b.gap.Reason))
}

// A cursor's missing stretches in the file, one after another:
//
//	from u64, to u64, records u64, number of gaps u32,
//	and for each gap: device u32, length u8, appendGap's form

func encodeMissing(list []missing) []byte {
	le := binary.LittleEndian
	var b []byte
	for i := range list {
		m := &list[i]
		b = le.AppendUint64(b, m.from)
		b = le.AppendUint64(b, m.to)
		b = le.AppendUint64(b, m.records)
		b = le.AppendUint32(b, uint32(len(m.gaps)))
		for j := range m.gaps {
			b = le.AppendUint32(b, m.gaps[j].device)
			at := len(b)
			b = appendGap(append(b, 0), &m.gaps[j].gap)
			b[at] = byte(len(b) - at - 1)
		}
	}
	return b
}

// decodeMissing refuses devices of an id that is not known.
func decodeMissing(b []byte, known uint32) (list []missing, ok bool) {
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < 28 {
			return nil, false
		}
		m := missing{from: le.Uint64(b), to: le.Uint64(b[8:]), records: le.Uint64(b[16:]), told: true}
		n := int(le.Uint32(b[24:]))
		b = b[28:]
		for range n {
			if len(b) < 5 || len(b) < 5+int(b[4]) {
				return nil, false
			}
			gap, ok := parseGap(b[5 : 5+int(b[4])])
			device := le.Uint32(b)
			if !ok || device == 0 || device >= known {
				return nil, false
			}
			m.gaps = append(m.gaps, deviceGap{device: device, gap: gap})
			b = b[5+int(b[4]):]
		}
		if m.from >= m.to || uint64(len(m.gaps)) > m.to-m.from {
			return nil, false
		}
		list = append(list, m)
	}
	return list, true
}
