package modbus

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/record"
)

func TestValuesAreWrittenInEachTypeAndOrder(t *testing.T) {
	for _, c := range []struct {
		name  string
		point PointConfig
		value record.Value
		want  string // the request's PDU, at address 4
	}{
		{"int16", PointConfig{Type: "int16"}, record.Int(-2), "06 0004 FFFE"},
		{"int16 of a whole float", PointConfig{Type: "int16"}, record.Float64(-2), "06 0004 FFFE"},
		{"uint16", PointConfig{Type: "uint16"}, record.Uint(65535), "06 0004 FFFF"},
		{"int32 ABCD", PointConfig{Type: "int32"}, record.Int(-0x01234568), "10 0004 0002 04 FEDC BA98"},
		{"int32 CDAB", PointConfig{Type: "int32", Order: "CDAB"}, record.Int(-0x01234568), "10 0004 0002 04 BA98 FEDC"},
		{"int32 BADC", PointConfig{Type: "int32", Order: "BADC"}, record.Int(-0x01234568), "10 0004 0002 04 DCFE 98BA"},
		{"int32 DCBA", PointConfig{Type: "int32", Order: "DCBA"}, record.Int(-0x01234568), "10 0004 0002 04 98BA DCFE"},
		{"uint64", PointConfig{Type: "uint64"}, record.Uint(math.MaxUint64), "10 0004 0004 08 FFFF FFFF FFFF FFFF"},
		{"int64", PointConfig{Type: "int64"}, record.Int(math.MinInt64), "10 0004 0004 08 8000 0000 0000 0000"},
		{"uint64 DCBA", PointConfig{Type: "uint64", Order: "DCBA"}, record.Uint(0x0102030405060708), "10 0004 0004 08 0807 0605 0403 0201"},
		{"float32", PointConfig{Type: "float32"}, record.Float64(21.1), "10 0004 0002 04 41A8 CCCD"},
		{"float32 of a whole number", PointConfig{Type: "float32"}, record.Int(4), "10 0004 0002 04 4080 0000"},
		{"float64", PointConfig{Type: "float64"}, record.Float64(math.Pi), "10 0004 0004 08 4009 21FB 5444 2D18"},
		{"string", PointConfig{Type: "string", Length: 6}, record.String("ABC"), "10 0004 0003 06 4142 4300 0000"},
		{"string BADC", PointConfig{Type: "string", Length: 3, Order: "BADC"}, record.String("ABC"), "10 0004 0002 04 4241 0043"},
		{"scaled", PointConfig{Type: "int16", Scale: 0.1}, record.Float64(21.5), "06 0004 00D7"},
		{"scaled, the nearest", PointConfig{Type: "int16", Scale: 0.1}, record.Float64(21.57), "06 0004 00D8"},
		{"scaled down and negative", PointConfig{Type: "int16", Scale: -0.01}, record.Float64(-0.03), "06 0004 0003"},
		{"offset", PointConfig{Type: "uint16", Offset: -40}, record.Int(-40), "06 0004 0000"},
		{"scaled float32", PointConfig{Type: "float32", Scale: 2, Offset: 1}, record.Float64(4), "10 0004 0002 04 3FC0 0000"},
		{"a bit on", PointConfig{Type: "bool", Bit: 3}, record.Bool(true), "16 0004 FFF7 0008"},
		{"a bit off", PointConfig{Type: "bool", Bit: 15}, record.Bool(false), "16 0004 7FFF 0000"},
		{"bits", PointConfig{Type: "bits", Bit: 4, Width: 6}, record.Uint(0x35), "16 0004 FC0F 0350"},
		{"all bits", PointConfig{Type: "bits", Width: 16}, record.Uint(0x1234), "06 0004 1234"},
		{"the limits themselves", PointConfig{Type: "int16", Limits: []float64{-5, 5}}, record.Int(5), "06 0004 0005"},
		{"a coil", PointConfig{Address: "coil:4"}, record.Bool(true), "05 0004 FF00"},
		{"a coil off", PointConfig{Address: "coil:4", Type: "bool"}, record.Bool(false), "05 0004 0000"},
	} {
		if c.point.Address == "" {
			c.point.Address = "holding:4"
		}
		request, _, err := parsed(t, c.point).encode(c.value)
		if err != nil || !bytes.Equal(request.PDU(), unhex(t, c.want)) {
			t.Errorf("%s: % X, %v", c.name, request.pdu, err)
		}
	}
}

func TestAValueThatDoesNotFitIsRefusedInWords(t *testing.T) {
	for _, c := range []struct {
		point PointConfig
		value record.Value
		says  string
	}{
		{PointConfig{Type: "int16"}, record.Int(32768), "p takes -32768 to 32767 (int16), not 32768"},
		{PointConfig{Type: "uint16"}, record.Int(-1), "p takes 0 to 65535 (uint16), not -1"},
		{PointConfig{Type: "uint32"}, record.Uint(1 << 32), "p takes 0 to 4294967295 (uint32), not 4294967296"},
		{PointConfig{Type: "int64"}, record.Uint(1 << 63), "9223372036854775807 (int64), not 9223372036854775808"},
		{PointConfig{Type: "uint64"}, record.Float64(1e300), "p takes 0 to 18446744073709551615 (uint64), not 1e+300"},
		{PointConfig{Type: "int16"}, record.Float64(21.5), "p takes whole numbers, not 21.5"},
		{PointConfig{Type: "int16", Scale: 0.1}, record.Int(4000), "p takes -3276.8 to 3276.7 (int16, scaled), not 4000"},
		{PointConfig{Type: "uint16", Scale: -1, Offset: 5}, record.Int(6), "p takes -65530 to 5 (uint16, scaled), not 6"},
		{PointConfig{Type: "int16", Scale: 1e-300}, record.Float64(1e300), "p takes "},
		{PointConfig{Type: "int16"}, record.Float64(math.NaN()), "p takes a finite number, not NaN"},
		{PointConfig{Type: "float32"}, record.Float64(math.Inf(-1)), "p takes a finite number, not -Inf"},
		{PointConfig{Type: "float32"}, record.Float64(1e39), "too large for a float32"},
		{PointConfig{Type: "float64", Scale: 1e-10}, record.Float64(1e300), "too large for a float64"},
		{PointConfig{Type: "float32"}, record.Bool(true), "p takes a number, not true"},
		{PointConfig{Type: "uint16"}, record.String("7"), `p takes a number, not "7"`},
		{PointConfig{Type: "uint16"}, record.Value{}, "p takes a number, not nothing"},
		{PointConfig{Type: "bool"}, record.Int(1), "p takes true or false, not 1"},
		{PointConfig{Address: "coil:1"}, record.String("on"), `p takes true or false, not "on"`},
		{PointConfig{Type: "bits", Width: 3}, record.Int(8), "p takes 0 to 7 (bits), not 8"},
		{PointConfig{Type: "string", Length: 4}, record.String("ABCDE"), "text of at most 4 bytes"},
		{PointConfig{Type: "string", Length: 4}, record.String("A\x00"), "without NUL"},
		{PointConfig{Type: "string", Length: 4}, record.String("\xFF"), "UTF-8"},
		{PointConfig{Type: "string", Length: 4}, record.Int(4), `p takes text, not 4; text goes in double quotes, in a shell in single ones besides: '"4"'`},
		{PointConfig{Type: "string", Length: 4}, record.String(strings.Repeat("x", 1000)), "…"},
		{PointConfig{Type: "int16", Limits: []float64{-5, 5}}, record.Float64(5.5), "p takes -5 to 5 (its limits), not 5.5"},
		{PointConfig{Type: "int16", Scale: 0.1, Limits: []float64{0, 1.06}}, record.Float64(1.06), "nearest to 1.06 that the device can hold is 1.1"},
	} {
		if c.point.Address == "" {
			c.point.Address = "holding:4"
		}
		_, _, err := parsed(t, c.point).encode(c.value)
		if err == nil || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 200 {
			t.Errorf("%s of %s: %v, want %q", inWords(c.value), c.point.Type, err, c.says)
		}
	}
}

// written is what registers hold after a request, if they held before.
func written(t testing.TB, r Request, before []byte) []byte {
	after := bytes.Clone(before)
	switch r.Function() {
	case WriteSingleRegister:
		copy(after, r.pdu[3:5])
	case WriteMultipleRegisters:
		copy(after, r.pdu[6:])
	case MaskWriteRegister:
		is, and, or := binary.BigEndian.Uint16(before), binary.BigEndian.Uint16(r.pdu[3:]), binary.BigEndian.Uint16(r.pdu[5:])
		binary.BigEndian.PutUint16(after, is&and|or&^and)
	default:
		t.Fatalf("%v writes no registers", r)
	}
	return after
}

// anyPoint is a point of holding registers with a sensible scale.
func anyPoint(t *rapid.T) PointConfig {
	c := PointConfig{Address: "holding:7", Order: "ABCD", Scale: 1}
	c.Type = rapid.SampledFrom([]string{"float32", "float64", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "string", "bits"}).Draw(t, "type")
	switch c.Type {
	case "bits":
		c.Bit = rapid.IntRange(0, 15).Draw(t, "bit")
		c.Width = rapid.IntRange(1, 16-c.Bit).Draw(t, "width")
	case "bool":
		c.Bit = rapid.IntRange(0, 15).Draw(t, "bit")
	case "string":
		c.Length = rapid.IntRange(1, 20).Draw(t, "length")
		c.Order = rapid.SampledFrom([]string{"ABCD", "BADC"}).Draw(t, "order")
	default:
		c.Order = rapid.SampledFrom([]string{"ABCD", "CDAB", "BADC", "DCBA"}).Draw(t, "order")
	}
	if strings.HasSuffix(c.Type, "16") || strings.HasSuffix(c.Type, "32") && c.Type != "float32" || c.Type == "bits" {
		c.Scale = rapid.SampledFrom([]float64{1, 0.1, 0.01, 0.001, 0.5, 0.25, 2, 10, -0.1, -3}).Draw(t, "scale")
		c.Offset = float64(rapid.IntRange(-1000, 1000).Draw(t, "offset")) / 10
	}
	return c
}

func TestWhatWasReadIsWrittenBackAsItWas(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := parsed(t, anyPoint(rt))
		registers := rapid.SliceOfN(rapid.Byte(), 2*p.count, 2*p.count).Draw(rt, "registers")
		value, bad := p.decode(registers, p.first)
		text, _ := value.Text()
		if bad != "" || strings.Contains(text, "\x00") {
			return
		}
		request, raw, err := p.encode(value)
		if err != nil {
			rt.Fatalf("%s: %v", inWords(value), err)
		}
		// Into the same registers, nothing changes; into others, p does.
		for _, before := range [][]byte{registers, rapid.SliceOfN(rapid.Byte(), 2*p.count, 2*p.count).Draw(rt, "others")} {
			after := written(t, request, before)
			again, _ := p.decode(after, p.first)
			if again != value || !p.holds(raw, after, p.first) {
				rt.Fatalf("%s: % X became % X, which is %s", inWords(value), before, after, inWords(again))
			}
			mask := p.mask()
			for i := range after {
				keep := ^byte(mask >> (8 * (1 - i%2)))
				if (after[i]^before[i])&keep != 0 {
					rt.Fatalf("other bits changed: % X became % X", before, after)
				}
			}
		}
	})
}

func TestAFloatMayBeWrittenAsFarAsItsLimitsAndNoFarther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := PointConfig{Address: "holding:7", Order: "ABCD", Type: rapid.SampledFrom([]string{"float32", "float32", "float64"}).Draw(rt, "type")}
		c.Scale = rapid.SampledFrom([]float64{1, 1, 0.1, 0.001, 3, -0.7}).Draw(rt, "scale")
		c.Offset = rapid.SampledFrom([]float64{0, 0, 0.3, -273.15}).Draw(rt, "offset")
		number := rapid.OneOf(rapid.Float64Range(-1000, 1000), rapid.Map(rapid.IntRange(-100, 100), func(n int) float64 { return float64(n) / 10 }))
		low, high := number.Draw(rt, "a limit"), number.Draw(rt, "the other")
		c.Limits = []float64{min(low, high), max(low, high)}
		p := parsed(t, c)
		for _, v := range []float64{low, high, rapid.Float64Range(c.Limits[0], c.Limits[1]).Draw(rt, "between")} {
			_, raw, err := p.encode(record.Float64(v))
			if err != nil {
				rt.Fatalf("%v of %v: %v", v, c.Limits, err)
			}
			if is := p.value(raw); c.Type == "float32" && !p.scaled() {
				if _, _, err := p.encode(is); err != nil {
					rt.Fatalf("%v, as it was read: %v", v, err)
				}
			}
		}
		beyond := max(math.Abs(low), math.Abs(high), math.Abs(c.Offset), 1) * 1e-6
		for _, v := range []float64{c.Limits[0] - beyond, c.Limits[1] + beyond} {
			if _, _, err := p.encode(record.Float64(v)); err == nil {
				rt.Fatalf("%v was taken, beyond %v", v, c.Limits)
			}
		}
	})
	p := parsed(t, PointConfig{Address: "holding:7", Type: "float32", Limits: []float64{-0.1, 0.1}})
	if _, raw, err := p.encode(record.Float64(0.1)); err != nil || p.value(raw) != record.Float32(0.1) {
		t.Errorf("0.1: % X, %v", raw, err)
	}
}

func FuzzEncode(f *testing.F) {
	f.Add(uint8(0), uint8(0), uint8(0), 0.1, 0.0, 21.5, "", uint8(0))
	f.Add(uint8(9), uint8(2), uint8(3), 1.0, 0.0, 0.0, "ABC", uint8(1))
	f.Add(uint8(6), uint8(3), uint8(3), 1e-300, 1e300, 1e300, "", uint8(2))
	types := []string{"float32", "float64", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "string", "bits"}
	orders := []string{"ABCD", "CDAB", "BADC", "DCBA"}
	f.Fuzz(func(t *testing.T, kind, order, n uint8, scale, offset, number float64, text string, what uint8) {
		if math.IsNaN(scale) || math.IsInf(scale, 0) || math.IsNaN(offset) || math.IsInf(offset, 0) {
			return // the configuration refuses them
		}
		c := PointConfig{
			Address: "holding:7", Type: types[int(kind)%len(types)], Order: orders[int(order)%len(orders)],
			Bit: int(n % 16), Width: 1 + int(n)%(16-int(n%16)), Length: 1 + int(n)%250, Scale: scale, Offset: offset,
		}
		if c.registers() < 2 && c.Type != "string" {
			c.Order = "ABCD"
		}
		p := parsed(t, c)
		v := [...]record.Value{
			record.Float64(number), record.String(text), record.Float32(float32(number)),
			record.Int(int64(n) - 100), record.Uint(math.Float64bits(number)), record.Bool(n%2 == 0),
		}[what%6]
		request, raw, err := p.encode(v)
		if err != nil {
			return
		}
		after := written(t, request, make([]byte, 2*p.count))
		if !p.holds(raw, after, p.first) {
			t.Errorf("%+v: %s wrote % X", c, inWords(v), after)
		}
	})
}
