package modbus

import (
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/mcp-edge/edge-agent/record"
)

// point is a PointConfig that was found good.
type point struct {
	*PointConfig
	table Table
	first int    // its first address
	count int    // how many registers or bits it takes
	place int    // among those that are read together
	label string // its name there

	refused Exception // what was logged last, 0 for nothing
}

func (c *PointConfig) point(table Table, first int) point {
	p := point{PointConfig: c, table: table, first: first, count: 1, label: c.Name}
	if !table.bits() {
		p.count = c.registers()
	}
	return p
}

// registers is how many of them a value of a register table takes; 0 for a type
// that does not exist.
func (c *PointConfig) registers() int {
	switch c.Type {
	case "bool", "bits", "int16", "uint16":
		return 1
	case "int32", "uint32", "float32":
		return 2
	case "int64", "uint64", "float64":
		return 4
	case "string":
		return (c.Length + 1) / 2
	}
	return 0
}

// mask is the bits that p takes of each of its registers.
func (p *point) mask() uint16 {
	switch {
	case p.table.bits():
		return 1
	case p.Type == "bool":
		return 1 << p.Bit
	case p.Type == "bits":
		return uint16(1<<p.Width-1) << p.Bit
	}
	return 0xFFFF
}

// decode takes p out of the data of a reply to a read that began at address
// first: its value, or why there is none.
func (p *point) decode(data []byte, first int) (value record.Value, bad string) {
	if p.table.bits() {
		at := p.first - first
		return record.Bool(data[at/8]>>(at%8)&1 != 0), ""
	}
	var number [8]byte
	value = p.value(p.ordered(number[:0], p.registersOf(data, first)))
	switch text, isText := value.Text(); {
	case isText && !utf8.ValidString(text):
		return record.Value{}, record.BadFormat
	case !value.Finite():
		return record.Value{}, record.BadNotFinite
	}
	return value, ""
}

// registersOf are those of p in the data of a read that began at address first.
func (p *point) registersOf(data []byte, first int) []byte {
	at := p.first - first
	return data[2*at : 2*(at+p.count)]
}

// ordered appends the value's registers to b, from the order that the device has
// them in to big-endian, or back.
func (p *point) ordered(b, registers []byte) []byte {
	b = append(b, registers...)
	if p.Order == "BADC" || p.Order == "DCBA" {
		for i := 0; i < len(b); i += 2 {
			b[i], b[i+1] = b[i+1], b[i]
		}
	}
	if p.Order == "CDAB" || p.Order == "DCBA" {
		for i, j := 0, len(b)-2; i < j; i, j = i+2, j-2 {
			b[i], b[i+1], b[j], b[j+1] = b[j], b[j+1], b[i], b[i+1]
		}
	}
	return b
}

func (p *point) value(b []byte) record.Value {
	switch p.Type {
	case "bool":
		return record.Bool(binary.BigEndian.Uint16(b)&p.mask() != 0)
	case "string":
		return record.String(strings.TrimRight(string(b[:p.Length]), "\x00"))
	case "float32":
		v := math.Float32frombits(binary.BigEndian.Uint32(b))
		if p.scaled() {
			return p.scale(float64(v))
		}
		return record.Float32(v)
	case "float64":
		v := math.Float64frombits(binary.BigEndian.Uint64(b))
		if p.scaled() {
			return p.scale(v)
		}
		return record.Float64(v)
	case "int16":
		return p.signed(int64(int16(binary.BigEndian.Uint16(b))))
	case "int32":
		return p.signed(int64(int32(binary.BigEndian.Uint32(b))))
	case "int64":
		return p.signed(int64(binary.BigEndian.Uint64(b)))
	case "bits":
		return p.unsigned(uint64(binary.BigEndian.Uint16(b) & p.mask() >> p.Bit))
	case "uint16":
		return p.unsigned(uint64(binary.BigEndian.Uint16(b)))
	case "uint32":
		return p.unsigned(uint64(binary.BigEndian.Uint32(b)))
	default: // uint64
		return p.unsigned(binary.BigEndian.Uint64(b))
	}
}

func (p *point) signed(v int64) record.Value {
	if p.scaled() {
		return p.scale(float64(v))
	}
	return record.Int(v)
}

func (p *point) unsigned(v uint64) record.Value {
	if p.scaled() {
		return p.scale(float64(v))
	}
	return record.Uint(v)
}

func (p *point) scaled() bool { return p.Scale != 1 || p.Offset != 0 }

func (p *point) scale(v float64) record.Value {
	if n, ok := p.fraction(); ok {
		return record.Float64(v/n + p.Offset)
	}
	return record.Float64(v*p.Scale + p.Offset)
}

// unscale is what scale makes v of.
func (p *point) unscale(v float64) float64 {
	if n, ok := p.fraction(); ok {
		return (v - p.Offset) * n
	}
	return (v - p.Offset) / p.Scale
}

// fraction tells whether the factor is one over the whole number n. Then that is
// what to divide by: 3 × 0.1 is 0.30000000000000004, and 3 / 10 is the 0.3 that
// was meant.
func (p *point) fraction() (n float64, ok bool) {
	n = math.Round(1 / p.Scale)
	return n, math.Abs(n) > 1 && 1/n == p.Scale
}
