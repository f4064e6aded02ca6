package modbus

import (
	"math"
	"testing"

	"github.com/mcp-edge/edge-agent/record"
)

// configured is a point as the configuration gives it, with its defaults.
func configured(c PointConfig) PointConfig {
	if c.Name == "" {
		c.Name = "p"
	}
	if c.Order == "" {
		c.Order = "ABCD"
	}
	if c.Scale == 0 {
		c.Scale = 1
	}
	if c.Width == 0 {
		c.Width = 1
	}
	if c.Access == "" {
		c.Access = "r"
	}
	return c
}

func parsed(t testing.TB, c PointConfig) *point {
	t.Helper()
	c = configured(c)
	table, first, err := parseAddress(c.Address)
	if err != nil {
		t.Fatal(err)
	}
	p := c.point(table, first)
	return &p
}

func TestValuesAreReadInEachTypeAndOrder(t *testing.T) {
	for _, c := range []struct {
		name, data string
		point      PointConfig
		want       record.Value
	}{
		{"int16", "FFFE", PointConfig{Type: "int16"}, record.Int(-2)},
		{"uint16", "FFFE", PointConfig{Type: "uint16"}, record.Uint(65534)},
		{"int32 ABCD", "FEDC BA98", PointConfig{Type: "int32"}, record.Int(-0x01234568)},
		{"int32 CDAB", "BA98 FEDC", PointConfig{Type: "int32", Order: "CDAB"}, record.Int(-0x01234568)},
		{"int32 BADC", "DCFE 98BA", PointConfig{Type: "int32", Order: "BADC"}, record.Int(-0x01234568)},
		{"int32 DCBA", "98BA DCFE", PointConfig{Type: "int32", Order: "DCBA"}, record.Int(-0x01234568)},
		{"uint32", "FEDC BA98", PointConfig{Type: "uint32"}, record.Uint(0xFEDCBA98)},
		{"int64 ABCD", "8000 0000 0000 0001", PointConfig{Type: "int64"}, record.Int(math.MinInt64 + 1)},
		{"uint64 ABCD", "0102 0304 0506 0708", PointConfig{Type: "uint64"}, record.Uint(0x0102030405060708)},
		{"uint64 CDAB", "0708 0506 0304 0102", PointConfig{Type: "uint64", Order: "CDAB"}, record.Uint(0x0102030405060708)},
		{"uint64 BADC", "0201 0403 0605 0807", PointConfig{Type: "uint64", Order: "BADC"}, record.Uint(0x0102030405060708)},
		{"uint64 DCBA", "0807 0605 0403 0201", PointConfig{Type: "uint64", Order: "DCBA"}, record.Uint(0x0102030405060708)},
		{"a large uint64 stays exact", "FFFF FFFF FFFF FFFF", PointConfig{Type: "uint64"}, record.Uint(math.MaxUint64)},
		{"float32 stays one", "41A8 CCCD", PointConfig{Type: "float32"}, record.Float32(21.1)},
		{"float32 CDAB", "CCCD 41A8", PointConfig{Type: "float32", Order: "CDAB"}, record.Float32(21.1)},
		{"float64", "4009 21FB 5444 2D18", PointConfig{Type: "float64"}, record.Float64(math.Pi)},
		{"string", "4142 4344 4500", PointConfig{Type: "string", Length: 6}, record.String("ABCDE")},
		{"string of odd length", "4142 43FF", PointConfig{Type: "string", Length: 3}, record.String("ABC")},
		{"string BADC", "4241 4443", PointConfig{Type: "string", Length: 4, Order: "BADC"}, record.String("ABCD")},
		{"string in UTF-8", "C2B0 4300", PointConfig{Type: "string", Length: 4}, record.String("°C")},
		{"bit 0", "0001", PointConfig{Type: "bool"}, record.Bool(true)},
		{"bit 15", "7FFF", PointConfig{Type: "bool", Bit: 15}, record.Bool(false)},
		{"bits", "0350", PointConfig{Type: "bits", Bit: 4, Width: 6}, record.Uint(0x35)},
		{"16 bits", "FFFF", PointConfig{Type: "bits", Width: 16}, record.Uint(0xFFFF)},
		{"scaled", "00D7", PointConfig{Type: "int16", Scale: 0.1}, record.Float64(21.5)},
		{"scaled as it was meant", "0003", PointConfig{Type: "int16", Scale: 0.1}, record.Float64(0.3)},
		{"scaled down and negative", "0003", PointConfig{Type: "int16", Scale: -0.01}, record.Float64(-0.03)},
		{"scaled up", "0003", PointConfig{Type: "uint16", Scale: 2.5}, record.Float64(7.5)},
		{"offset", "0000", PointConfig{Type: "uint16", Offset: -40}, record.Float64(-40)},
		{"scaled float32", "3FC0 0000", PointConfig{Type: "float32", Scale: 2, Offset: 1}, record.Float64(4)},
		{"scaled bits", "000F", PointConfig{Type: "bits", Width: 4, Scale: 10}, record.Float64(150)},
	} {
		c.point.Address = "holding:0"
		p := parsed(t, c.point)
		got, bad := p.decode(unhex(t, c.data), 0)
		if bad != "" || got != c.want {
			t.Errorf("%s: %+v %q, want %+v", c.name, got, bad, c.want)
		}
	}
}

func TestAValueIsFoundInsideAReply(t *testing.T) {
	p := parsed(t, PointConfig{Address: "input:102", Type: "uint16"})
	if v, _ := p.decode([]byte{0, 1, 0, 2, 0, 3}, 100); v != record.Uint(3) {
		t.Errorf("%+v", v)
	}
	for address, want := range map[string]bool{"coil:20": true, "coil:29": false, "coil:30": true} {
		p := parsed(t, PointConfig{Address: address})
		if v, _ := p.decode([]byte{0b1, 0b100}, 20); v != record.Bool(want) {
			t.Errorf("%s: %+v", address, v)
		}
	}
}

func TestWhatIsNoNumberOrNoTextIsBad(t *testing.T) {
	for _, c := range []struct {
		data, want string
		point      PointConfig
	}{
		{"7FC0 0000", record.BadNotFinite, PointConfig{Type: "float32"}},
		{"FF80 0000", record.BadNotFinite, PointConfig{Type: "float32", Scale: 2}},
		{"7FF0 0000 0000 0000", record.BadNotFinite, PointConfig{Type: "float64"}},
		{"7FEF FFFF FFFF FFFF", record.BadNotFinite, PointConfig{Type: "float64", Scale: 1e300}},
		{"FF41", record.BadFormat, PointConfig{Type: "string", Length: 2}},
	} {
		c.point.Address = "holding:0"
		if v, bad := parsed(t, c.point).decode(unhex(t, c.data), 0); bad != c.want || v != (record.Value{}) {
			t.Errorf("%s as %s: %+v %q", c.data, c.point.Type, v, bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint8(0), uint8(0), uint8(0), 0.1, []byte{0x7F, 0xC0, 0, 0, 0, 0, 0, 0})
	f.Add(uint8(9), uint8(2), uint8(3), 1.0, []byte("ABC\x00\x00\x00\x00\x00"))
	types := []string{"float32", "float64", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "string", "bits"}
	orders := []string{"ABCD", "CDAB", "BADC", "DCBA"}
	f.Fuzz(func(t *testing.T, kind, order, n uint8, scale float64, data []byte) {
		c := PointConfig{
			Address: "holding:7", Type: types[int(kind)%len(types)], Order: orders[int(order)%len(orders)],
			Bit: int(n % 16), Width: 1 + int(n)%(16-int(n%16)), Length: 1 + int(n)%250, Scale: scale,
		}
		p := parsed(t, c)
		if len(data) < 2*p.count {
			return
		}
		v, bad := p.decode(data, 7)
		if (v.Kind() == record.KindNone) != (bad != "") || !v.Finite() {
			t.Errorf("%+v of % X: %+v %q", c, data, v, bad)
		}
	})
}
