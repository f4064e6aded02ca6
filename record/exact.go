package record

import "math"

// AppendExact appends r as AppendJSON does, and adds what its numbers alone don't
// say, so that ParseJSON makes the same record of it again:
//
//	"types":{"supply_temp":"float32"}
//
// Without an entry there, a whole number is an int, a uint where it is too large
// for one, and any other number is a float64.
func (r *Record) AppendExact(b []byte) []byte {
	b = r.AppendJSON(b)
	if r.Gap != nil {
		return b
	}
	b = b[:len(b)-1]
	b = appendMembers(b, "types", r.Points, func(b []byte, p *Point) ([]byte, bool) {
		kind := p.Value.unlikely()
		return appendQuoted(b, kind), kind != "" && p.Bad == ""
	})
	return append(b, '}')
}

// Names of kinds in JSON.
const (
	typeFloat32 = "float32"
	typeFloat64 = "float64"
	typeUint    = "uint"
)

// unlikely names v's kind, if a reader would take its JSON for one of another.
func (v Value) unlikely() string {
	switch v.kind {
	case KindFloat32:
		if v.Finite() {
			return typeFloat32
		}
	case KindFloat64:
		if f := math.Float64frombits(v.bits); v.Finite() && looksWhole(f) {
			return typeFloat64
		}
	case KindUint:
		if v.bits <= math.MaxInt64 {
			return typeUint
		}
	case KindNone, KindInt, KindBool, KindString:
	}
	return ""
}

// looksWhole tells whether appendFloat writes f without a point or an exponent.
func looksWhole(f float64) bool { return f == math.Trunc(f) && math.Abs(f) < 1e21 }
