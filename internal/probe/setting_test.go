package probe_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mcp-edge/edge-agent/internal/probe"
	"github.com/mcp-edge/edge-agent/transport/serial"
)

func TestTheCommonestSettingsComeFirst(t *testing.T) {
	list := probe.Settings(probe.Setting{}, probe.Bauds(), probe.Formats())
	if len(list) != 32 || fmt.Sprint(list[:4]) != "[9600 8E1 9600 8N1 19200 8E1 19200 8N1]" || fmt.Sprint(list[30:]) != "[1200 8N2 1200 8O1]" {
		t.Errorf("%v", list)
	}
}

func TestTheConfiguredSettingComesFirstAndOnce(t *testing.T) {
	known := setting(t, 19200, "8N1")
	list := probe.Settings(known, probe.Bauds(), probe.Formats())
	if len(list) != 32 || list[0] != known || slices.Contains(list[1:], known) {
		t.Errorf("%v", list)
	}
}

func TestFormatsAreReadAsTheyAreWritten(t *testing.T) {
	for _, text := range []string{"8E1", "8N1", "8N2", "8O1"} {
		if f, err := probe.ParseFormat(text); err != nil || f.String() != text {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
	for _, text := range []string{"", "8", "8X1", "8E3", "7E1", "8E11", "9N1"} {
		if _, err := probe.ParseFormat(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestTheFormatOfAConfiguredLineIsOneOfModbusOrNone(t *testing.T) {
	if f, ok := probe.FormatOf(serial.Config{DataBits: 8, Parity: "odd", StopBits: 1}); !ok || f.String() != "8O1" {
		t.Errorf("%v, %v", f, ok)
	}
	for _, c := range []serial.Config{
		{}, {DataBits: 7, Parity: "even", StopBits: 1}, {DataBits: 8, Parity: "mark", StopBits: 1}, {DataBits: 8, Parity: "even", StopBits: 1.5},
	} {
		if f, ok := probe.FormatOf(c); ok {
			t.Errorf("%+v is %v", c, f)
		}
	}
}

func TestUnitsAreNumbersAndRanges(t *testing.T) {
	units, err := probe.ParseUnits("1-3, 17,2,247", 1, 247)
	if err != nil || !slices.Equal(units, []int{1, 2, 3, 17, 247}) {
		t.Errorf("%v, %v", units, err)
	}
	for _, text := range []string{"", "x", "0", "248", "5-3", "1-", "-5", "1,,2", "1-1000000000000"} {
		if units, err := probe.ParseUnits(text, 1, 247); err == nil {
			t.Errorf("%q is %v", text, units)
		}
	}
}
