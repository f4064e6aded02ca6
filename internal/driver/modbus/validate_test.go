package modbus

import (
	"math"
	"strings"
	"testing"
)

func TestEachMistakeInAPointIsReportedByItsKey(t *testing.T) {
	good := PointConfig{Address: "holding:10", Type: "int16"}
	with := func(change func(c *PointConfig)) PointConfig {
		c := configured(good)
		change(&c)
		return c
	}
	for _, c := range []struct {
		key, says string
		point     PointConfig
	}{
		{"name", "MQTT", with(func(c *PointConfig) { c.Name = "a/b" })},
		{"name", "empty", with(func(c *PointConfig) { c.Name = "" })},
		{"address", "holding:0", with(func(c *PointConfig) { c.Address = "40001" })},
		{"address", "coil, discrete, input or holding", with(func(c *PointConfig) { c.Address = "register:1" })},
		{"address", "0 to 65535", with(func(c *PointConfig) { c.Address = "holding:65536" })},
		{"address", "0 to 65535", with(func(c *PointConfig) { c.Address = "holding:-1" })},
		{"address", "holding:65532", with(func(c *PointConfig) { c.Address, c.Type = "holding:65533", "float64" })},
		{"type", "missing", with(func(c *PointConfig) { c.Type = "" })},
		{"type", "float32", with(func(c *PointConfig) { c.Type = "float" })},
		{"type", "bool", with(func(c *PointConfig) { c.Address = "coil:1" })},
		{"type", "max_registers", with(func(c *PointConfig) { c.Type, c.Length = "string", 22 })},
		{"order", "leave it out", with(func(c *PointConfig) { c.Order = "BADC" })},
		{"order", "BADC", with(func(c *PointConfig) { c.Type, c.Length, c.Order = "string", 4, "CDAB" })},
		{"order", "DCBA", with(func(c *PointConfig) { c.Type, c.Order = "int32", "abcd" })},
		{"length", "length = 1", with(func(c *PointConfig) { c.Type = "string" })},
		{"length", "leave it out", with(func(c *PointConfig) { c.Length = 4 })},
		{"bit", "leave it out", with(func(c *PointConfig) { c.Bit = 3 })},
		{"bit", "leave it out", with(func(c *PointConfig) { c.Address, c.Type, c.Bit = "coil:1", "bool", 1 })},
		{"bit", "0 to 15", with(func(c *PointConfig) { c.Type, c.Bit = "bool", 16 })},
		{"width", "leave it out", with(func(c *PointConfig) { c.Width = 2 })},
		{"width", "1 to 4", with(func(c *PointConfig) { c.Type, c.Bit, c.Width = "bits", 12, 5 })},
		{"scale", "leave them out", with(func(c *PointConfig) { c.Type, c.Scale = "bool", 2 })},
		{"scale", "leave them out", with(func(c *PointConfig) { c.Type, c.Length, c.Offset = "string", 2, 1 })},
		{"scale", "not 0", with(func(c *PointConfig) { c.Scale = 0 })},
		{"scale", "number", with(func(c *PointConfig) { c.Scale = math.Inf(1) })},
		{"offset", "number", with(func(c *PointConfig) { c.Offset = math.NaN() })},
		{"access", `"r"`, with(func(c *PointConfig) { c.Address, c.Access = "input:1", "rw" })},
		{"access", `"r"`, with(func(c *PointConfig) { c.Address, c.Type, c.Access = "discrete:1", "", "rw" })},
		{"limits", "two numbers", with(func(c *PointConfig) { c.Access, c.Limits = "rw", []float64{1} })},
		{"limits", "two numbers", with(func(c *PointConfig) { c.Access, c.Limits = "rw", []float64{0, math.Inf(1)} })},
		{"limits", "lowest value first", with(func(c *PointConfig) { c.Access, c.Limits = "rw", []float64{2, 1} })},
		{"limits", `access = "rw"`, with(func(c *PointConfig) { c.Limits = []float64{1, 2} })},
		{"limits", "leave them out", with(func(c *PointConfig) { c.Type, c.Access, c.Limits = "bool", "rw", []float64{0, 1} })},
	} {
		var keys, problems []string
		ValidatePoints(DeviceConfig{Unit: 1, MaxRegisters: 10, MaxBits: 100}, []PointConfig{c.point}, func(_ int, key, problem string) {
			keys, problems = append(keys, key), append(problems, problem)
		})
		if len(keys) != 1 || keys[0] != c.key || !strings.Contains(problems[0], c.says) {
			t.Errorf("%+v: %v %q, want one for %s with %q", c.point, keys, problems, c.key, c.says)
		}
	}
}

func TestAValueThatNoRequestCanWriteIsNotWritable(t *testing.T) {
	for length, good := range map[int]bool{246: true, 247: false} {
		ok := true
		long := configured(PointConfig{Address: "holding:0", Type: "string", Length: length, Access: "rw"})
		ValidatePoints(DeviceConfig{Unit: 1, MaxRegisters: 125, MaxBits: 100}, []PointConfig{long}, func(_ int, key, problem string) {
			ok = ok && key != "access"
		})
		if ok != good {
			t.Errorf("%d bytes: %v", length, ok)
		}
	}
}

func TestPointsThatGetInEachOthersWayAreReported(t *testing.T) {
	for _, c := range []struct {
		name   string
		points []PointConfig
		want   string
	}{
		{"one name twice", []PointConfig{{Name: "a", Address: "holding:0", Type: "int16"}, {Name: "a", Address: "holding:1", Type: "int16"}}, "1 name"},
		{"one register twice", []PointConfig{{Name: "a", Address: "holding:0", Type: "int16"}, {Name: "b", Address: "holding:0", Type: "uint16"}}, "1 address"},
		{"a value's second register", []PointConfig{{Name: "a", Address: "holding:1", Type: "int16"}, {Name: "b", Address: "holding:0", Type: "float32"}}, "1 address"},
		{"a bit twice", []PointConfig{{Name: "a", Address: "input:0", Type: "bits", Bit: 2, Width: 3}, {Name: "b", Address: "input:0", Type: "bool", Bit: 4}}, "1 address"},
		{"a bit of a whole register", []PointConfig{{Name: "a", Address: "input:0", Type: "int16"}, {Name: "b", Address: "input:0", Type: "bool"}}, "1 address"},
		{"a coil twice", []PointConfig{{Name: "a", Address: "coil:7"}, {Name: "b", Address: "coil:7"}}, "1 address"},
		{"other bits", []PointConfig{{Name: "a", Address: "input:0", Type: "bits", Bit: 2, Width: 3}, {Name: "b", Address: "input:0", Type: "bool", Bit: 5}}, ""},
		{"other tables", []PointConfig{{Name: "a", Address: "input:0", Type: "int16"}, {Name: "b", Address: "holding:0", Type: "int16"}}, ""},
	} {
		var points []PointConfig
		for _, p := range c.points {
			points = append(points, configured(p))
		}
		var got []string
		ValidatePoints(DeviceConfig{Unit: 1, MaxRegisters: 125, MaxBits: 2000}, points, func(i int, key, _ string) {
			got = append(got, string(rune('0'+i))+" "+key)
		})
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %v, want %q", c.name, got, c.want)
		}
	}
}

func TestUnitsAndFramingsThatALinkCanNotHaveAreReported(t *testing.T) {
	for _, c := range []struct {
		framing string
		unit    int
		good    bool
	}{
		{FramingRTU, 1, true},
		{FramingRTU, 247, true},
		{FramingRTU, 0, false},
		{FramingRTU, 248, false},
		{FramingTCP, 0, true},
		{FramingTCP, 255, true},
		{FramingTCP, 256, false},
	} {
		good := true
		(&DeviceConfig{Unit: c.unit}).Validate(c.framing, func(key, problem string) {
			good = false
			if key != "unit" || !strings.Contains(problem, "write") {
				t.Errorf("%s: %s", key, problem)
			}
		})
		if good != c.good {
			t.Errorf("unit %d on %s: %v", c.unit, c.framing, good)
		}
	}

	wrong := 0
	(&LinkConfig{Framing: FramingTCP}).Validate("serial", func(string, string) { wrong++ })
	(&LinkConfig{Framing: FramingRTU}).Validate("tcp", func(string, string) { t.Error("RTU through TCP is refused") })
	if wrong != 1 || (LinkConfig{}).On("serial").Framing != FramingRTU || (LinkConfig{}).On("tcp").Framing != FramingTCP {
		t.Error("the framing of a link is wrong")
	}
}
