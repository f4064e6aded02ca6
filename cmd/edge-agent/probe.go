package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/probe"
	"github.com/mcp-edge/edge-agent/transport/serial"
)

type probeCommand struct {
	Link    string        `arg:"" help:"A device file such as /dev/ttyUSB0, HOST:PORT for Modbus TCP, or the name of a [[link]] in FILE."`
	Config  string        `short:"c" placeholder:"FILE" help:"The TOML file that has the link. Unless given: /etc/edge-agent/edge-agent.toml."`
	Units   string        `placeholder:"1-247" help:"Ask only these at every setting. Otherwise a few are asked first, and all where somebody answers."`
	Baud    []int         `placeholder:"9600,19200" help:"Try only these speeds."`
	Format  []string      `placeholder:"8E1,8N1" help:"Try only these formats: 8 data bits, parity (N, E or O), stop bits."`
	Timeout time.Duration `placeholder:"150ms" help:"How long a unit may take to answer: 150ms on a serial line, 500ms on a network unless given."`
	RTU     bool          `name:"rtu" help:"HOST:PORT is a gateway that takes RTU frames through TCP."`
	Full    bool          `help:"Ask all units at all settings, and go on when somebody was found."`
}

// Help is shown below the options.
func (probeCommand) Help() string {
	return `Finds the Modbus devices on a line: at which speed and parity it runs and which units answer,
and prints a configuration to paste. It only reads (one holding register of each unit, then one
value of each table of those that answer), so it changes nothing in any device.

The line must be free: stop an agent that uses it, or take the [[link]] out of its configuration.
Ctrl-C ends the scan and prints what was found until then.`
}

// errNothing is the end of a scan that found nobody.
var errNothing = errors.New("nobody answered")

func (c probeCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	link, err := c.link(errs)
	if err != nil {
		return err
	}
	plan, err := c.plan(link)
	if err != nil {
		return inputError{err}
	}
	screen := newProbeScreen(errs)
	fmt.Fprintf(errs, "probing %s; only reading, nothing is changed\n", link.endpoint())
	result, err := probe.Scan(ctx, plan, link.open, screen)
	screen.end()
	switch {
	case errors.Is(err, serial.ErrInUse):
		return fmt.Errorf("%w\nIf it is the running agent: stop it while you probe (systemctl stop edge-agent), or take the [[link]] out of its configuration", err)
	case err != nil:
		return err
	}
	for _, note := range result.Notes() {
		fmt.Fprintln(errs, note)
	}
	if result.Stopped {
		fmt.Fprintln(errs, "The scan was ended before its end; this is what was found until then.")
	}
	if result.Best() == nil {
		return c.nobody(link, plan)
	}
	return result.Print(out, link.paste)
}

// nobody says what to check when a scan found nobody.
func (c probeCommand) nobody(link probeLink, plan probe.Plan) error {
	var text strings.Builder
	say := func(line string) { text.WriteString("\n  - " + line) }
	if link.Transport == "serial" {
		say("the wires: A and B may be swapped (makers name them either way); is there a common ground?")
		say("the devices: are they powered, and set to Modbus RTU?")
	} else {
		say("the device: does it allow one more connection, and is the port right (502 usually)?")
		say("a gateway in between: does it take RTU frames through TCP? Try --rtu.")
	}
	if len(plan.First) > 0 {
		say("units beyond those asked: try --full, or --units with those you expect")
	}
	say(fmt.Sprintf("slow devices: try --timeout %v", 4*plan.Timeout))
	return fmt.Errorf("%w on %s. What to check:%s", errNothing, link.endpoint(), text.String())
}

// plan makes a plan of the options.
func (c probeCommand) plan(l probeLink) (plan probe.Plan, err error) {
	line := l.Transport == "serial"
	switch {
	case c.Timeout < 0:
		return plan, fmt.Errorf("--timeout=%v is no time to wait", c.Timeout)
	case !line && (len(c.Baud) > 0 || len(c.Format) > 0):
		return plan, errors.New("--baud and --format are for serial lines")
	case c.RTU && (line || l.given):
		return plan, errors.New("--rtu is for HOST:PORT; a serial line always has RTU frames, and a [[link]] says what it has")
	}
	plan = probe.Plan{Settings: []probe.Setting{{}}, All: c.Full, Timeout: cmp.Or(c.Timeout, 500*time.Millisecond)}
	if line {
		plan.Timeout = cmp.Or(c.Timeout, 150*time.Millisecond)
		if plan.Settings, err = c.settings(l); err != nil {
			return plan, err
		}
		if c.Units == "" && !c.Full {
			plan.First = firstUnits(l.paste.Known)
		}
	}
	plan.Units, err = c.units(l.Modbus.Framing)
	return plan, err
}

// units are who may be there.
func (c probeCommand) units(framing string) ([]int, error) {
	lowest, highest := 1, 247
	units := probe.Units(lowest, highest)
	if framing == modbus.FramingTCP {
		// Beyond 247 only 255 is in use: the server itself, as 0 (Modbus Messaging
		// on TCP/IP V1.0b, section 4.4.1.2).
		lowest, highest = 0, 255
		units = append(units, 0, 255)
	}
	if c.Units == "" {
		return units, nil
	}
	units, err := probe.ParseUnits(c.Units, lowest, highest)
	if err != nil {
		return nil, fmt.Errorf("--units: %w", err)
	}
	return units, nil
}

// firstUnits are those that makers ship devices with, and the configured ones.
func firstUnits(known map[int]string) []int {
	units := append(probe.Units(1, 10), 247)
	for unit := range known {
		if !slices.Contains(units, unit) {
			units = append(units, unit)
		}
	}
	slices.Sort(units)
	return units
}

// settings are those of a serial line to try. The configured one comes first.
func (c probeCommand) settings(l probeLink) ([]probe.Setting, error) {
	bauds, formats := probe.Bauds(), probe.Formats()
	var known probe.Setting
	if format, ok := probe.FormatOf(l.Serial); ok && l.given && len(c.Baud) == 0 && len(c.Format) == 0 {
		known = probe.Setting{Baud: l.Serial.Baud, Format: format}
	}
	if len(c.Baud) > 0 {
		bauds = c.Baud
	}
	for _, baud := range bauds {
		if baud < 50 || baud > 4_000_000 {
			return nil, fmt.Errorf("--baud=%d: 50 to 4000000 can be set", baud)
		}
	}
	if len(c.Format) > 0 {
		formats = nil
	}
	for _, text := range c.Format {
		format, err := probe.ParseFormat(text)
		if err != nil {
			return nil, fmt.Errorf("--format: %w", err)
		}
		formats = append(formats, format)
	}
	return probe.Settings(known, bauds, formats), nil
}
