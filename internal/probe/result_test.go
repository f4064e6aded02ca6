package probe_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/probe"
)

// found is a result of units at one setting.
func found(t *testing.T, format string, units ...probe.Unit) probe.Result {
	t.Helper()
	return probe.Result{Visits: []probe.Visit{
		{Setting: setting(t, 9600, "8N2"), Asked: 11},
		{Setting: setting(t, 1200, format), Asked: 247, Units: units},
	}}
}

func printed(t *testing.T, r probe.Result, link probe.Link) string {
	t.Helper()
	var out strings.Builder
	if err := r.Print(&out, link); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAFindIsPrintedAsAConfiguration(t *testing.T) {
	refusing := probe.Unit{Number: 9}
	for i := range refusing.Tables {
		refusing.Tables[i].Err = modbus.IllegalFunction
	}
	got := printed(t, found(t, "8E1", probe.Unit{Number: 2}, refusing), probe.Link{
		Name: "cellar", Lines: []string{`transport = "serial"`, `address = "/dev/ttyUSB0"`},
		Serial: []string{"echo = true"}, Known: map[int]string{2: "boiler-1"},
	})
	want := `[[link]]
name = "cellar"
transport = "serial"
address = "/dev/ttyUSB0"
serial = { baud = 1200, parity = "even", stop_bits = 1, echo = true }

# Unit 2 answers; it is the device "boiler-1" that you have.

[[device]]
id = "unit-9"
link = "cellar"
driver = "modbus"
modbus = { unit = 9 }
  # Address 0 of each table: holding exception 1 (illegal function); input exception 1 (illegal function); ` +
		`coil exception 1 (illegal function); discrete exception 1 (illegal function).
  [[device.poll]]
  name = "values"
  every = "2s"
  # Put in the points of the device's manual; addresses count from zero.
  points = [
    { name = "first", address = "holding:0", type = "uint16" }, # refused: choose another address
    # { name = "temp", address = "input:1", type = "int16", scale = 0.1, unit = "°C" },
    # { name = "flow", address = "holding:2", type = "float32", order = "ABCD" },
  ]
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestManyUnitsOnASlowLineArePolledSeldom(t *testing.T) {
	for n, every := range map[int]string{1: "1s", 10: "10s", 247: "5m"} {
		var units []probe.Unit
		for unit := range n {
			units = append(units, probe.Unit{Number: unit + 1})
		}
		if got := printed(t, found(t, "8N1", units...), probe.Link{Name: "a"}); strings.Count(got, fmt.Sprintf("every = %q", every)) != n {
			t.Errorf("%d units are not polled every %s:\n%.1000s", n, every, got)
		}
	}
}

func TestAScanWithoutAFindPrintsNothing(t *testing.T) {
	if got := printed(t, probe.Result{Visits: []probe.Visit{{Asked: 11}}}, probe.Link{}); got != "" {
		t.Errorf("%q", got)
	}
}
