package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/mcp-edge/edge-agent/record"
)

// parse reads raw as a value of f. problem goes on from the key and its value.
// With a problem, the value may still be there for what refers to it.
func (f *field) parse(raw any) (value any, problem string) {
	if f.isDuration() {
		return f.duration(raw)
	}
	if f.bytes {
		return f.size(raw)
	}
	switch f.typ.Kind() {
	case reflect.String:
		return f.text(raw)
	case reflect.Bool:
		if b, ok := raw.(bool); ok {
			return b, ""
		}
		return nil, fmt.Sprintf("is %s; write %s = true or false", describe(raw), f.key)
	case reflect.Float32, reflect.Float64:
		return f.number(raw)
	}
	return f.whole(raw)
}

func (f *field) text(raw any) (any, string) {
	s, ok := raw.(string)
	if !ok {
		return nil, f.notText(raw)
	}
	if problem := f.oneOf(s); problem != "" {
		return nil, problem
	}
	if f.required && s == "" {
		return s, fmt.Sprintf("is empty; write %s = %s", f.key, f.sample())
	}
	if f.isName {
		if problem := nameProblem(s); problem != "" {
			return s, problem
		}
	}
	return s, ""
}

// nameProblem tells what is wrong with a name, with a good one nearby.
func nameProblem(name string) string {
	err := record.CheckName(name)
	if err == nil {
		return ""
	}
	near := strings.Map(func(c rune) rune {
		if strings.ContainsRune("/+#", c) || unicode.IsControl(c) {
			return '-'
		}
		return c
	}, strings.TrimLeft(name, "_$"))
	if record.CheckName(near) != nil {
		return err.Error()
	}
	return fmt.Sprintf("%v; write %q", err, near)
}

// notText tells what is wrong with raw where a string is wanted.
func (f *field) notText(raw any) string {
	switch raw.(type) {
	case bool, int64, float64:
		if len(f.oneof) == 0 {
			return fmt.Sprintf("is not in quotes; write %s = \"%v\"", f.key, raw)
		}
	}
	return fmt.Sprintf("is %s; write a string, such as %s = %s", describe(raw), f.key, f.sample())
}

func (f *field) whole(raw any) (any, string) {
	switch v := raw.(type) {
	case int64:
		if problem := f.oneOf(strconv.FormatInt(v, 10)); problem != "" {
			return nil, problem
		}
		if reflect.Zero(f.typ).OverflowInt(v) || v < f.bound(f.low, math.MinInt64) || v > f.bound(f.high, math.MaxInt64) {
			return nil, f.outOfRange()
		}
		return v, ""
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return nil, fmt.Sprintf("has a fraction; write %s = %.0f", f.key, v)
		}
		return nil, "has a fraction; write a whole number"
	case string:
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
			return nil, fmt.Sprintf("is a string; write it without quotes: %s = %d", f.key, n)
		}
	}
	return nil, fmt.Sprintf("is %s; write a whole number, such as %s = %s", describe(raw), f.key, f.sample())
}

func (f *field) number(raw any) (any, string) {
	var v float64
	switch raw := raw.(type) {
	case float64:
		v = raw
	case int64:
		v = float64(raw)
	case string:
		if n, err := strconv.ParseFloat(strings.TrimSpace(raw), 64); err == nil {
			return nil, fmt.Sprintf("is a string; write it without quotes: %s = %v", f.key, n)
		}
		return nil, fmt.Sprintf("is a string; write a number, such as %s = %s", f.key, f.sample())
	default:
		return nil, fmt.Sprintf("is %s; write a number, such as %s = %s", describe(raw), f.key, f.sample())
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, "is no number to reckon with; write a finite one"
	}
	if problem := f.oneOf(strconv.FormatFloat(v, 'g', -1, 64)); problem != "" {
		return nil, problem
	}
	low, errLow := strconv.ParseFloat(f.low, 64)
	high, errHigh := strconv.ParseFloat(f.high, 64)
	if errLow == nil && v < low || errHigh == nil && v > high {
		return nil, f.outOfRange()
	}
	return v, ""
}

// duration refuses a bare number: one reader takes it for seconds, the next for
// milliseconds, and Go for nanoseconds.
func (f *field) duration(raw any) (any, string) {
	var s string
	switch v := raw.(type) {
	case string:
		s = v
	case int64:
		return nil, f.bare(strconv.FormatInt(v, 10))
	case float64:
		return nil, f.bare(strconv.FormatFloat(v, 'f', -1, 64))
	default:
		return nil, fmt.Sprintf("is %s; write a duration, such as %s = %s", describe(raw), f.key, f.sample())
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return nil, f.bare(s)
		}
		return nil, `is no duration; write a number with ms, s, m or h, such as "500ms" or "1m30s"`
	}
	n := int64(v)
	if n < f.bound(f.low, math.MinInt64) || n > f.bound(f.high, math.MaxInt64) {
		return nil, f.outOfRange()
	}
	return v, ""
}

// bare is what to say of a duration without a unit: meant as seconds if that is
// in range, and as milliseconds if not.
func (f *field) bare(number string) string {
	unit := "s"
	if n, err := strconv.ParseFloat(number, 64); err == nil && n*float64(time.Second) > float64(f.bound(f.high, math.MaxInt64)) {
		unit = "ms"
	}
	return fmt.Sprintf("is a bare number; write %s = \"%s%s\"", f.key, number, unit)
}

func (f *field) size(raw any) (any, string) {
	var n int64
	switch v := raw.(type) {
	case int64:
		n = v
	case string:
		var err error
		if n, err = parseSize(v); err != nil {
			return nil, err.Error()
		}
	default:
		return nil, fmt.Sprintf("is %s; write a size, such as %s = %s", describe(raw), f.key, f.sample())
	}
	if n < f.bound(f.low, 1) || n > f.bound(f.high, math.MaxInt64) || reflect.Zero(f.typ).OverflowInt(n) {
		return nil, f.outOfRange()
	}
	return n, ""
}

// oneOf tells what is wrong with a value that must be one of a few.
func (f *field) oneOf(s string) string {
	if len(f.oneof) == 0 {
		return ""
	}
	quoted := make([]string, 0, len(f.oneof))
	for _, known := range f.oneof {
		if s == known {
			return ""
		}
		quoted = append(quoted, f.quote(known))
	}
	return "is not known; write " + list(quoted, "or")
}

// bound reads an end of f's range; without one it is none.
func (f *field) bound(end string, none int64) int64 {
	switch {
	case end == "":
		return none
	case f.isDuration():
		if d, err := time.ParseDuration(end); err == nil {
			return int64(d)
		}
	case f.bytes:
		if n, err := parseSize(end); err == nil {
			return n
		}
	default:
		if n, err := strconv.ParseInt(end, 10, 64); err == nil {
			return n
		}
	}
	return none // a test holds that each end can be read
}

func (f *field) outOfRange() string {
	limits := f.limits()
	if limits == "" {
		limits = f.key + " = " + f.sample()
	}
	return "is out of range; write " + limits
}

// limits says the range of f; empty if there is none.
func (f *field) limits() string {
	show := func(end string) string {
		if f.bytes {
			if n, err := parseSize(end); err == nil {
				end = formatSize(n)
			}
		}
		return f.quote(end)
	}
	switch {
	case f.low != "" && f.high != "":
		return show(f.low) + " to " + show(f.high)
	case f.low != "":
		return "at least " + show(f.low)
	case f.high != "":
		return "at most " + show(f.high)
	}
	return ""
}

// sizeUnits are the binary prefixes of IEC 80000-13.
func sizeUnits() []string { return []string{"B", "KiB", "MiB", "GiB", "TiB"} }

// parseSize reads "512KiB", "1.5GiB" or "4096" (bytes).
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiBkmgtb ")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n < 0 || math.IsInf(n, 0) || math.IsNaN(n) {
		return 0, fmt.Errorf(`is no size; write one such as "512KiB" or "1GiB"`)
	}
	unit := strings.TrimSpace(s[len(digits):])
	factor := 1.0
	for _, known := range sizeUnits() {
		if unit == known || unit == "" {
			if n*factor >= math.MaxInt64 {
				return 0, fmt.Errorf("is more than any disk holds")
			}
			return int64(n * factor), nil
		}
		if strings.EqualFold(unit, known[:1]) || strings.EqualFold(unit, known[:1]+"B") || strings.EqualFold(unit, known) {
			return 0, fmt.Errorf("has no unit that is known; write %q", digits+known)
		}
		factor *= 1024
	}
	return 0, fmt.Errorf(`is no size; write one such as "512KiB" or "1GiB"`)
}

// formatSize writes n with the largest unit that it is a whole number of.
func formatSize(n int64) string {
	unit := 0
	for units := sizeUnits(); n > 0 && n%1024 == 0 && unit < len(units)-1; unit++ {
		n /= 1024
	}
	if unit == 0 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatInt(n, 10) + sizeUnits()[unit]
}

// presetValue is the default of f as the TOML library would hand it over.
func presetValue(f *field) any {
	s := f.initial()
	if f.isDuration() || f.bytes {
		return s
	}
	switch f.typ.Kind() {
	case reflect.String:
		return s
	case reflect.Bool:
		return s == "true"
	case reflect.Float32, reflect.Float64:
		if v, err := strconv.ParseFloat(s, 64); err == nil {
			return v
		}
	default:
		if v, err := strconv.ParseInt(s, 10, 64); err == nil {
			return v
		}
	}
	return nil
}
