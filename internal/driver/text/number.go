package text

import (
	"math"
	"strconv"
	"strings"

	"github.com/mcp-edge/edge-agent/record"
)

// setValue gives p what a field says: a whole number exactly, as long as 64 bits
// hold it; any other decimal number as a double; NaN and infinities as a bad
// point; and everything else as text.
func setValue(p *record.Point, field string) {
	field = strings.TrimSpace(field)
	switch whole, number := looksLike(field); {
	case whole && setWhole(p, field):
	case number:
		setFloat(p, field)
	case isNotFinite(field):
		p.Bad = record.BadNotFinite
	default:
		p.Value = record.String(strings.ToValidUTF8(field, "\uFFFD"))
	}
}

func setWhole(p *record.Point, field string) bool {
	if i, err := strconv.ParseInt(field, 10, 64); err == nil {
		p.Value = record.Int(i)
		return true
	}
	u, err := strconv.ParseUint(strings.TrimPrefix(field, "+"), 10, 64)
	if err == nil {
		p.Value = record.Uint(u)
	}
	return err == nil
}

func setFloat(p *record.Point, field string) {
	f, _ := strconv.ParseFloat(field, 64) // out of range gives an infinity
	if math.IsInf(f, 0) {
		p.Bad = record.BadNotFinite
		return
	}
	p.Value = record.Float64(f)
}

// looksLike tells whether s is a decimal number, and whether it is a whole one.
// strconv alone would take hexadecimal floats and underscores, which no
// instrument means as numbers.
func looksLike(s string) (whole, number bool) {
	mantissa, exponent, scientific := unsigned(s), "0", false
	if i := strings.IndexAny(mantissa, "eE"); i >= 0 {
		mantissa, exponent, scientific = mantissa[:i], unsigned(mantissa[i+1:]), true
	}
	before, after, point := strings.Cut(mantissa, ".")
	number = digits(before) && digits(after) && before+after != "" && digits(exponent) && exponent != ""
	return number && !point && !scientific, number
}

// unsigned takes one leading sign away.
func unsigned(s string) string {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		return s[1:]
	}
	return s
}

// digits is true for nothing but digits, and for nothing at all.
func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isNotFinite(s string) bool {
	switch strings.ToLower(unsigned(s)) {
	case "nan", "inf", "infinity":
		return true
	}
	return false
}
