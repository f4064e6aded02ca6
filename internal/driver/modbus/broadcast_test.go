package modbus_test

import (
	"strings"
	"testing"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/record"
)

func TestAWriteToAllNeedsEveryDeviceOfTheLineToAllowIt(t *testing.T) {
	limited := func(what string, low, high float64) modbus.PointConfig {
		p := named("x", what)
		p.Limits = []float64{low, high}
		return p
	}
	bits := func(bit, width int) modbus.PointConfig {
		p := named("x", "holding:2 bits")
		p.Bit, p.Width = bit, width
		return p
	}
	scaled := limited("holding:5 int16", 0, 9)
	scaled.Scale = 0.1
	for name, c := range map[string]struct {
		point string
		value record.Value
		other modbus.PointConfig
		says  string // "" for nothing
	}{
		"nothing there":             {"energy", record.Int(7), readOnly("x", "holding:5 uint16"), ""},
		"the address of a coil":     {"fast/temp", record.Int(7), readOnly("x", "discrete:5"), ""},
		"writable there":            {"fast/temp", record.Int(7), named("x", "holding:5 uint16"), ""},
		"read-only there":           {"fast/temp", record.Int(7), readOnly("x", "holding:5 uint16"), "fast/temp can't be written to all devices at once (broadcast), because of the device fan: its point slow/x (holding:5) is read-only; "},
		"a part that is read-only":  {"energy", record.Int(7), readOnly("x", "holding:4 uint16"), "is read-only"},
		"a read-only coil":          {"pump", record.Bool(true), readOnly("x", "coil:0"), "is read-only"},
		"a coil":                    {"pump", record.Bool(true), named("x", "coil:0"), ""},
		"other bits, read-only":     {"mode", record.Int(7), func() modbus.PointConfig { p := bits(0, 4); p.Access = "r"; return p }(), ""},
		"a bit too many, read-only": {"mode", record.Int(7), func() modbus.PointConfig { p := bits(0, 5); p.Access = "r"; return p }(), "is read-only"},
		"some of the bits":          {"mode", record.Int(7), bits(5, 2), ""},
		"more bits":                 {"mode", record.Int(7), bits(3, 5), "would be changed in part only"},
		"more registers":            {"fast/temp", record.Int(7), named("x", "holding:4 uint32"), "would be changed in part only"},
		"within its limits":         {"fast/temp", record.Int(7), limited("holding:5 uint16", 0, 7), ""},
		"beyond its limits":         {"fast/temp", record.Int(8), limited("holding:5 uint16", 0, 7), "takes 0 to 7 (its limits), and would become 8"},
		"scaled, within":            {"fast/temp", record.Int(90), scaled, ""},
		"scaled, beyond":            {"fast/temp", record.Int(91), scaled, "would become 9.1"},
		"another type":              {"fast/temp", record.Int(65535), limited("holding:5 int16", 0, 100), "would become -1"},
		"half of it":                {"energy", record.Int(0x10007), limited("holding:4 uint16", 0, 7), ""},
		"half of it, beyond":        {"energy", record.Int(0x10008), limited("holding:4 uint16", 0, 7), "would become 8"},
		"not a number":              {"energy", record.Int(0x7FC00000), named("x", "holding:3 float32"), "would have no value (not-finite)"},
	} {
		t.Run(name, func(t *testing.T) {
			onALine(t, nil, func(p *plant, _ map[int]*modbusslave.Slave) {
				line := []modbus.DeviceSpec{
					{ID: "valve", Device: device(2), Polls: []modbus.PollPoints{{Poll: "p", Points: ats("holding:99 uint16")}}},
					{ID: "boiler", Device: device(1), Polls: []modbus.PollPoints{{Poll: "p", Points: ats("holding:5 uint16")}}},
					{ID: "fan", Device: device(3), Polls: []modbus.PollPoints{
						{Poll: "fast", Points: ats("holding:98 uint16")}, {Poll: "slow", Points: []modbus.PointConfig{c.other}},
					}},
				}
				command, err := boiler(p, p.link).Broadcast(c.point, c.value, line)
				switch {
				case c.says == "" && err != nil:
					p.Error(err)
				case c.says != "" && (err == nil || command != nil || !strings.Contains(err.Error(), c.says)):
					p.Errorf("%v does not say %q", err, c.says)
				}
			})
		})
	}
}

func TestWhatAWriteToAllWouldMakeOfAnotherDeviceDependsOnTheOrderOfBoth(t *testing.T) {
	onALine(t, nil, func(p *plant, _ map[int]*modbusslave.Slave) {
		energy, low, high := named("energy", "holding:3 uint32"), named("low", "holding:3 uint16"), named("high", "holding:4 uint16")
		energy.Order, low.Limits, high.Limits = "CDAB", []float64{0, 7}, []float64{8, 8}
		meter, err := p.link.Device(modbus.DeviceSpec{ID: "meter", Device: device(1), Polls: []modbus.PollPoints{{Poll: "p", Points: []modbus.PointConfig{energy}}}})
		if err != nil {
			p.Fatal(err)
		}
		line := []modbus.DeviceSpec{{ID: "fan", Device: device(2), Polls: []modbus.PollPoints{{Poll: "p", Points: []modbus.PointConfig{low, high}}}}}
		if _, err := meter.Broadcast("energy", record.Int(0x80007), line); err != nil {
			p.Error(err)
		}
		if _, err := meter.Broadcast("energy", record.Int(0x70008), line); err == nil || !strings.Contains(err.Error(), "would become 8") {
			p.Error(err)
		}
	})
}
