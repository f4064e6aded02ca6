package store

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"time"
)

// A segment's header, little-endian:
//
//	0  CRC-32C of the rest of the header
//	4  length of the records
//	8  number of records
//	12 length of the marks
//	16 CRC-32C of the marks
//	20 position of the first record
//	28 oldest time, nanoseconds since 1970
const headerSize = 36

// maxEnvelope is the most that a record's envelope adds to its body.
const maxEnvelope = binary.MaxVarintLen32 + 4 + binary.MaxVarintLen64 + binary.MaxVarintLen64 + 8 + binary.MaxVarintLen32

// checksum is CRC-32C (Castagnoli, RFC 3720 section 12.1).
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

type header struct {
	first   uint64 // position
	count   uint32
	records uint32 // length
	marks   uint32 // length
	marksum uint32
	oldest  int64
}

func (h *header) last() uint64 { return h.first + uint64(h.count) - 1 }

func (h *header) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[4:], h.records)
	le.PutUint32(b[8:], h.count)
	le.PutUint32(b[12:], h.marks)
	le.PutUint32(b[16:], h.marksum)
	le.PutUint64(b[20:], h.first)
	le.PutUint64(b[28:], uint64(h.oldest))
	le.PutUint32(b, checksum(b[4:headerSize]))
}

// parseHeader reports false for a header that is damaged or does not fit its
// segment.
func parseHeader(b []byte) (h header, ok bool) { return parseHeaderOf(b, int64(len(b))) }

// parseHeaderOf does so for a segment of size bytes, of which b are the first.
func parseHeaderOf(b []byte, size int64) (h header, ok bool) {
	le := binary.LittleEndian
	if len(b) < headerSize || le.Uint32(b) != checksum(b[4:headerSize]) {
		return h, false
	}
	h = header{
		records: le.Uint32(b[4:]), count: le.Uint32(b[8:]), marks: le.Uint32(b[12:]), marksum: le.Uint32(b[16:]),
		first: le.Uint64(b[20:]), oldest: int64(le.Uint64(b[28:])),
	}
	return h, h.count > 0 && uint64(size) == headerSize+uint64(h.records)+uint64(h.marks)
}

// envelope is a record as it stands in a segment.
type envelope struct {
	source uint32
	gap    bool // body is a gap
	seq    uint64
	time   int64 // nanoseconds since 1970; noTime
	part   uint32
	body   []byte
}

const noTime = math.MinInt64

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return noTime
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == noTime {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

const (
	flagPart = 1 << iota
	flagGap
	flagBits = iota
)

// appendRecord adds e to a segment's records.
func appendRecord(b []byte, e *envelope) []byte {
	var env [maxEnvelope]byte
	flags := uint64(0)
	if e.part != 0 {
		flags |= flagPart
	}
	if e.gap {
		flags |= flagGap
	}
	n := binary.PutUvarint(env[:], uint64(e.source)<<flagBits|flags)
	n += binary.PutUvarint(env[n:], e.seq)
	binary.LittleEndian.PutUint64(env[n:], uint64(e.time))
	n += 8
	if e.part != 0 {
		n += binary.PutUvarint(env[n:], uint64(e.part))
	}
	b = binary.AppendUvarint(b, uint64(n+len(e.body)))
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = append(b, env[:n]...)
	b = append(b, e.body...)
	binary.LittleEndian.PutUint32(b[at:], checksum(b[at+4:]))
	return b
}

// frame finds the first record of b. size is 0 if none can stand there.
func frame(b []byte) (content []byte, sum uint32, size int) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length == 0 || length > uint64(len(b)) || n+4+int(length) > len(b) {
		return nil, 0, 0
	}
	size = n + 4 + int(length)
	return b[n+4 : size], binary.LittleEndian.Uint32(b[n:]), size
}

// parse reads what frame found; body aliases content.
func (e *envelope) parse(content []byte) bool {
	id, n := binary.Uvarint(content)
	if n <= 0 || id>>flagBits > math.MaxUint32 {
		return false
	}
	seq, m := binary.Uvarint(content[n:])
	if m <= 0 || len(content) < n+m+8 {
		return false
	}
	e.source, e.gap, e.seq, e.part = uint32(id>>flagBits), id&flagGap != 0, seq, 0
	n += m
	e.time = int64(binary.LittleEndian.Uint64(content[n:]))
	n += 8
	if id&flagPart != 0 {
		part, m := binary.Uvarint(content[n:])
		if m <= 0 || part > math.MaxUint32 {
			return false
		}
		e.part = uint32(part)
		n += m
	}
	e.body = content[n:]
	return true
}

// take reads the first record of b and checks it. size is 0 if it is damaged.
func (e *envelope) take(b []byte) (size int) {
	content, sum, size := frame(b)
	if size == 0 || checksum(content) != sum || !e.parse(content) {
		return 0
	}
	return size
}

// mark is the last number of a channel as of a segment.
type mark struct {
	channel uint32
	last    uint64
}

func appendMarks(b []byte, marks []mark) []byte {
	for _, m := range marks {
		b = binary.AppendUvarint(b, uint64(m.channel))
		b = binary.AppendUvarint(b, m.last)
	}
	return b
}

// parseMarks calls each for the marks of b; false if they end in mid-air.
func parseMarks(b []byte, each func(mark)) bool {
	for len(b) > 0 {
		id, n := binary.Uvarint(b)
		if n <= 0 || id > math.MaxUint32 {
			return false
		}
		last, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return false
		}
		each(mark{channel: uint32(id), last: last})
		b = b[n+m:]
	}
	return true
}
