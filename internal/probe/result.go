package probe

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
)

// Result is what came of a scan.
type Result struct {
	Visits  []Visit // the settings that were tried, in their order
	Gateway bool    // a gateway answered for units that it did not reach
	Stopped bool    // the scan was ended before its end
}

// Visit is what came of one setting.
type Visit struct {
	Setting Setting
	Asked   int    // how many units
	Units   []Unit // who answered, by number
	// Garbled are the units asked when something came that could not be read.
	Garbled []int
	// Foreign is how many good frames came that answered nothing asked.
	Foreign uint64
	// Err is why the setting was not tried to its end; nil when it was.
	Err error
}

// Best is the setting at which most units answered; nil when none did.
func (r Result) Best() *Visit {
	var best *Visit
	for i := range r.Visits {
		if v := &r.Visits[i]; len(v.Units) > 0 && (best == nil || len(v.Units) > len(best.Units)) {
			best = v
		}
	}
	return best
}

// opening is the error of a scan that could open the line at no setting.
func (r Result) opening() error {
	for _, v := range r.Visits {
		if v.Asked > 0 || v.Err == nil {
			return nil
		}
	}
	if len(r.Visits) == 0 || r.Stopped {
		return nil
	}
	return r.Visits[0].Err
}

// Notes are what a technician should know beside who answered.
func (r Result) Notes() []string {
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	best := r.Best()
	for i := range r.Visits {
		v := &r.Visits[i]
		switch {
		case v.Err != nil && v.Asked == 0:
			note("%v could not be tried: %v", v.Setting, v.Err)
		case v.Err != nil:
			note("%v was not tried to its end: %v", v.Setting, v.Err)
		}
		switch {
		case len(v.Garbled) == 0:
		case len(v.Units) > 0:
			note("At %v something unreadable came when asking %s: two devices with one number, or noise on the line (termination, shield).", v.Setting, unitList(v.Garbled))
		case best == nil || v.Setting != best.Setting:
			note("At %v something speaks, but not at this setting: what came could not be read.", v.Setting)
		}
		if v.Foreign > 0 {
			note("At %v %d good frames came that answered nothing asked: another master is on the line, or a device needs longer than --timeout.", v.Setting, v.Foreign)
		}
		if len(v.Units) > 0 && v != best {
			note("At %v answered too: %s.", v.Setting, unitList(v.numbers()))
		}
	}
	if r.Gateway {
		note("A gateway answers for the units that it does not reach.")
	}
	return notes
}

// numbers are those of the units that answered.
func (v *Visit) numbers() []int {
	list := make([]int, len(v.Units))
	for i, u := range v.Units {
		list[i] = u.Number
	}
	return list
}

// anyUnit tells of a device that does not look at the unit, as many do that sit
// at an IP address of their own: everyone answered.
func (v *Visit) anyUnit() bool {
	return v.Setting == Setting{} && v.Asked > 10 && len(v.Units) == v.Asked
}

func unitList(units []int) string {
	words := make([]string, len(units))
	for i, unit := range units {
		words[i] = strconv.Itoa(unit)
	}
	what := "unit "
	if len(units) > 1 {
		what = "units "
	}
	return what + strings.Join(words, ", ")
}

// Link is the [[link]] that a scan was made on, as the configuration to paste
// has it.
type Link struct {
	Name string
	// Lines are its keys in TOML, but for name and serial.
	Lines []string
	// Serial are the keys of its serial table that were not scanned for, in TOML:
	// "echo = true".
	Serial []string
	// Known are the devices that it has already, by unit.
	Known map[int]string
}

// Print writes the configuration of the best setting: a [[link]] and a
// [[device]] for each unit that is not known yet. It writes nothing when nobody
// answered.
func (r Result) Print(out io.Writer, link Link) error {
	best := r.Best()
	if best == nil {
		return nil
	}
	p := &page{link: link, best: best}
	p.linkTable()
	units := best.Units
	if best.anyUnit() {
		p.say("")
		p.say("# It answers to every unit: one device, which does not look at the number.")
		units = units[:1]
	}
	for _, u := range units {
		p.device(u, len(units))
	}
	_, err := io.WriteString(out, p.text.String())
	return err
}

// page is a configuration while it is written.
type page struct {
	link Link
	best *Visit
	text strings.Builder
}

func (p *page) say(format string, args ...any) { fmt.Fprintf(&p.text, format+"\n", args...) }

func (p *page) linkTable() {
	p.say("[[link]]")
	p.say("name = %q", p.link.Name)
	for _, line := range p.link.Lines {
		p.say("%s", line)
	}
	if s := p.best.Setting; s != (Setting{}) {
		keys := append([]string{
			fmt.Sprintf("baud = %d", s.Baud), fmt.Sprintf("parity = %q", s.Format.Parity), fmt.Sprintf("stop_bits = %d", s.Format.StopBits),
		}, p.link.Serial...)
		p.say("serial = { %s }", strings.Join(keys, ", "))
	}
}

// device writes one of n.
func (p *page) device(u Unit, n int) {
	p.say("")
	if id := p.link.Known[u.Number]; id != "" {
		p.say("# Unit %d answers; it is the device %q that you have.", u.Number, id)
		return
	}
	p.say("[[device]]")
	p.say(`id = "unit-%d"`, u.Number)
	p.say("link = %q", p.link.Name)
	p.say(`driver = "modbus"`)
	p.say("modbus = { unit = %d }", u.Number)
	var tables []string
	for _, table := range []modbus.Table{modbus.Holding, modbus.Input, modbus.Coil, modbus.Discrete} {
		tables = append(tables, fmt.Sprintf("%v %v", table, u.Tables[table]))
	}
	p.say("  # Address 0 of each table: %s.", strings.Join(tables, "; "))
	p.say("  [[device.poll]]")
	p.say(`  name = "values"`)
	p.say("  every = %q", every(n, p.best.Setting))
	p.say("  # Put in the points of the device's manual; addresses count from zero.")
	p.say("  points = [")
	p.say("    %s", point(u))
	p.say(`    # { name = "temp", address = "input:1", type = "int16", scale = 0.1, unit = "°C" },`)
	p.say(`    # { name = "flow", address = "holding:2", type = "float32", order = "ABCD" },`)
	p.say("  ]")
}

// point is one that can be read, if there is one.
func point(u Unit) string {
	for _, table := range []modbus.Table{modbus.Holding, modbus.Input} {
		if u.Tables[table].Err == nil {
			return fmt.Sprintf(`{ name = "first", address = "%v:0", type = "uint16" },`, table)
		}
	}
	for _, table := range []modbus.Table{modbus.Coil, modbus.Discrete} {
		if u.Tables[table].Err == nil {
			return fmt.Sprintf(`{ name = "first", address = "%v:0" },`, table)
		}
	}
	return `{ name = "first", address = "holding:0", type = "uint16" }, # refused: choose another address`
}

// every is a period at which n units of one short poll each leave most of the
// line's time free.
func every(n int, at Setting) string {
	for _, nice := range []string{"1s", "2s", "5s", "10s", "30s", "1m", "2m"} {
		if d, err := time.ParseDuration(nice); err == nil && 4*at.wireTime()*time.Duration(n) <= d {
			return nice
		}
	}
	return "5m"
}
