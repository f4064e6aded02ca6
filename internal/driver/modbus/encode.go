package modbus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mcp-edge/edge-agent/record"
)

// encode is the inverse of decode: the request that writes v to p, and what p's
// registers hold then, in big-endian, or its coil as one byte. Registers of which
// p takes some bits only hold those bits. The error says to a user why v can't
// be written.
func (p *point) encode(v record.Value) (request Request, raw []byte, err error) {
	switch {
	case p.Type == "bool" || p.table.bits():
		return p.encodeBool(v)
	case p.Type == "string":
		raw, err = p.encodeText(v)
	default:
		raw, err = p.encodeNumber(v)
	}
	if err != nil {
		return Request{}, nil, err
	}
	request, err = p.writing(raw)
	return request, raw, err
}

func (p *point) encodeBool(v record.Value) (Request, []byte, error) {
	on, ok := v.Bool()
	switch {
	case !ok:
		return Request{}, nil, fmt.Errorf("%s takes true or false, not %s", p.label, inWords(v))
	case p.table.bits():
		request, err := WriteCoil(p.first, on)
		if on {
			return request, []byte{1}, err
		}
		return request, []byte{0}, err
	}
	raw := make([]byte, 2)
	if on {
		binary.BigEndian.PutUint16(raw, p.mask())
	}
	request, err := p.writing(raw)
	return request, raw, err
}

func (p *point) encodeText(v record.Value) ([]byte, error) {
	text, ok := v.Text()
	switch {
	case !ok:
		return nil, fmt.Errorf("%s takes text, not %s; text goes in double quotes, in a shell in single ones besides: '\"%s\"'", p.label, inWords(v), inWords(v))
	case len(text) > p.Length:
		return nil, fmt.Errorf("%s takes text of at most %d bytes, and %s has %d", p.label, p.Length, inWords(v), len(text))
	case !utf8.ValidString(text) || strings.Contains(text, "\x00"):
		return nil, fmt.Errorf("%s takes text in UTF-8 without NUL, not %s", p.label, inWords(v))
	}
	return append([]byte(text), make([]byte, 2*p.count-len(text))...), nil
}

func (p *point) encodeNumber(v record.Value) ([]byte, error) {
	number, ok := numberOf(v)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s takes a number, not %s", p.label, inWords(v))
	case !v.Finite():
		return nil, fmt.Errorf("%s takes a finite number, not %s", p.label, inWords(v))
	case !p.allowed(number):
		return nil, fmt.Errorf("%s takes %v to %v (its limits), not %s", p.label, p.Limits[0], p.Limits[1], inWords(v))
	}
	if p.floats() {
		return p.encodeFloat(number, v)
	}
	raw, err := p.encodeWhole(number, v)
	if err != nil {
		return nil, err
	}
	// Rounding must not carry it beyond its limits.
	if written, _ := numberOf(p.value(raw)); !p.allowed(written) {
		return nil, fmt.Errorf("%s takes %v to %v (its limits), and the nearest to %s that the device can hold is %v",
			p.label, p.Limits[0], p.Limits[1], inWords(v), written)
	}
	return raw, nil
}

// allowed tells whether a number is within p's limits. A float rarely holds a
// number exactly, be it a limit or the number, so that they are compared as it
// holds them: what equals a limit is within, and so is what is read of it then.
func (p *point) allowed(number float64) bool {
	if len(p.Limits) != 2 {
		return true
	}
	low, high := p.Limits[0], p.Limits[1]
	if p.floats() {
		number, low, high = p.held(number), p.held(low), p.held(high)
		low, high = min(low, high), max(low, high) // a negative scale turns them round
	}
	return low <= number && number <= high
}

func (p *point) floats() bool { return p.Type == "float32" || p.Type == "float64" }

// held is what a float in the device holds of a number.
func (p *point) held(number float64) float64 {
	if p.scaled() {
		number = p.unscale(number)
	}
	if p.Type == "float32" {
		number = float64(float32(number))
	}
	return number
}

func (p *point) encodeFloat(number float64, v record.Value) ([]byte, error) {
	held := p.held(number)
	switch {
	case math.IsInf(held, 0):
		return nil, fmt.Errorf("%s can't hold %s: it is too large for a %s", p.label, inWords(v), p.Type)
	case p.Type == "float64":
		return binary.BigEndian.AppendUint64(nil, math.Float64bits(held)), nil
	}
	return binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(held))), nil
}

// encodeWhole rounds to the nearest whole number where a scale makes fractions
// of them; otherwise v must be whole.
func (p *point) encodeWhole(number float64, v record.Value) ([]byte, error) {
	whole := new(big.Int)
	i, isInt := v.Int()
	u, isUint := v.Uint()
	switch {
	case p.scaled():
		number = math.Round(p.unscale(number))
		if math.IsInf(number, 0) {
			return nil, p.beyond(v)
		}
		big.NewFloat(number).Int(whole)
	case isInt:
		whole.SetInt64(i)
	case isUint:
		whole.SetUint64(u)
	case number != math.Trunc(number):
		return nil, fmt.Errorf("%s takes whole numbers, not %s", p.label, inWords(v))
	default:
		big.NewFloat(number).Int(whole)
	}
	if lowest, highest := p.wholes(); whole.Cmp(lowest) < 0 || whole.Cmp(highest) > 0 {
		return nil, p.beyond(v)
	}
	bits := whole.Uint64()
	if whole.Sign() < 0 {
		bits = uint64(whole.Int64())
	}
	if p.Type == "bits" {
		bits <<= p.Bit
	}
	return binary.BigEndian.AppendUint64(nil, bits)[8-2*p.count:], nil
}

// wholes are the least and the greatest whole number that p's bits can hold.
func (p *point) wholes() (lowest, highest *big.Int) {
	size := uint(16 * p.count)
	if p.Type == "bits" {
		size = uint(p.Width)
	}
	one := big.NewInt(1)
	if strings.HasPrefix(p.Type, "int") {
		half := new(big.Int).Lsh(one, size-1)
		return new(big.Int).Neg(half), new(big.Int).Sub(half, one)
	}
	return new(big.Int), new(big.Int).Sub(new(big.Int).Lsh(one, size), one)
}

// beyond says what p can hold.
func (p *point) beyond(v record.Value) error {
	lowest, highest := p.wholes()
	if !p.scaled() {
		return fmt.Errorf("%s takes %v to %v (%s), not %s", p.label, lowest, highest, p.Type, inWords(v))
	}
	ends := make([]float64, 0, 2)
	for _, end := range []*big.Int{lowest, highest} {
		raw, _ := new(big.Float).SetInt(end).Float64()
		scaled, _ := p.scale(raw).Float()
		ends = append(ends, scaled)
	}
	return fmt.Errorf("%s takes %v to %v (%s, scaled), not %s", p.label, min(ends[0], ends[1]), max(ends[0], ends[1]), p.Type, inWords(v))
}

// writing is the request that makes p's registers raw. A register of which p
// takes some bits only is changed in the device, so that nobody's other bits are
// written back as they were.
func (p *point) writing(raw []byte) (Request, error) {
	switch mask := p.mask(); {
	case mask != 0xFFFF:
		return MaskRegister(p.first, ^mask, binary.BigEndian.Uint16(raw))
	case p.count == 1:
		return WriteRegister(p.first, binary.BigEndian.Uint16(p.ordered(nil, raw)))
	}
	ordered := p.ordered(nil, raw)
	values := make([]uint16, p.count)
	for i := range values {
		values[i] = binary.BigEndian.Uint16(ordered[2*i:])
	}
	return WriteRegisters(p.first, values)
}

// holds tells whether the data of a read that began at address first say that p
// is raw.
func (p *point) holds(raw, data []byte, first int) bool {
	if p.table.bits() {
		at := p.first - first
		return data[at/8]>>(at%8)&1 == raw[0]
	}
	is := p.ordered(nil, p.registersOf(data, first))
	switch {
	case p.Type == "string":
		return bytes.Equal(is[:p.Length], raw[:p.Length])
	case p.count == 1:
		return (binary.BigEndian.Uint16(is)^binary.BigEndian.Uint16(raw))&p.mask() == 0
	}
	return bytes.Equal(is, raw)
}

func numberOf(v record.Value) (number float64, ok bool) {
	if i, isInt := v.Int(); isInt {
		return float64(i), true
	}
	if u, isUint := v.Uint(); isUint {
		return float64(u), true
	}
	return v.Float()
}

// inWords writes v for a message, not longer than a line.
func inWords(v record.Value) string {
	if text, ok := v.Text(); ok {
		const longest = 40
		if len(text) > longest {
			return strconv.Quote(text[:longest]) + "…"
		}
		return strconv.Quote(text)
	}
	if on, ok := v.Bool(); ok {
		return strconv.FormatBool(on)
	}
	if i, ok := v.Int(); ok {
		return strconv.FormatInt(i, 10)
	}
	if u, ok := v.Uint(); ok {
		return strconv.FormatUint(u, 10)
	}
	if f, ok := v.Float(); ok {
		size := 64
		if v.Kind() == record.KindFloat32 {
			size = 32
		}
		return strconv.FormatFloat(f, 'g', -1, size)
	}
	return "nothing"
}
