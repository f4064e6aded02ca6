package record

import "math"

// Kind is the type of a Value.
type Kind uint8

const (
	KindNone Kind = iota
	KindFloat32
	KindFloat64
	KindInt
	KindUint
	KindBool
	KindString
)

// Value is one reading. Whole numbers stay exact to 64 bits, and a 32-bit float
// stays one, so that 21.1 is written as 21.1 and not as 21.100000381.
// The zero Value has KindNone. Values are comparable with ==.
type Value struct {
	kind Kind
	bits uint64
	text string
}

func Float32(v float32) Value { return Value{kind: KindFloat32, bits: uint64(math.Float32bits(v))} }
func Float64(v float64) Value { return Value{kind: KindFloat64, bits: math.Float64bits(v)} }
func Int(v int64) Value       { return Value{kind: KindInt, bits: uint64(v)} }
func Uint(v uint64) Value     { return Value{kind: KindUint, bits: v} }
func String(v string) Value   { return Value{kind: KindString, text: v} }

func Bool(v bool) Value {
	if v {
		return Value{kind: KindBool, bits: 1}
	}
	return Value{kind: KindBool}
}

// Kind tells which of the accessors below holds the value.
func (v Value) Kind() Kind { return v.kind }

// Float returns a float of either size; ok is false for every other kind.
func (v Value) Float() (f float64, ok bool) {
	switch v.kind {
	case KindFloat32:
		return float64(math.Float32frombits(uint32(v.bits))), true
	case KindFloat64:
		return math.Float64frombits(v.bits), true
	}
	return 0, false
}

// Int returns a signed whole number; ok is false for every other kind.
func (v Value) Int() (i int64, ok bool) { return int64(v.bits), v.kind == KindInt }

// Uint returns an unsigned whole number; ok is false for every other kind.
func (v Value) Uint() (u uint64, ok bool) { return v.bits, v.kind == KindUint }

// Bool returns a truth value; ok is false for every other kind.
func (v Value) Bool() (b, ok bool) { return v.bits != 0, v.kind == KindBool }

// Text returns a string; ok is false for every other kind.
func (v Value) Text() (s string, ok bool) { return v.text, v.kind == KindString }

// Finite is false for a float that is NaN or infinite, and true otherwise.
func (v Value) Finite() bool {
	f, ok := v.Float()
	return !ok || !math.IsNaN(f) && !math.IsInf(f, 0)
}
