package modbus

import (
	"fmt"
	"math"

	"github.com/mcp-edge/edge-agent/record"
)

// Validate reports what is wrong with c on a link of this transport, by key.
func (c *LinkConfig) Validate(transport string, report func(key, problem string)) {
	if transport == "serial" && c.Framing == FramingTCP {
		report("framing", `"tcp" frames don't exist on a serial line: write "rtu", or leave it out`)
	}
}

// Validate reports what is wrong with c on a link of this framing (see
// LinkConfig.On), by key.
func (c *DeviceConfig) Validate(framing string, report func(key, problem string)) {
	if lowest, highest := unitRange(framing); c.Unit < lowest || c.Unit > highest {
		report("unit", fmt.Sprintf("%d can't be asked on this link: write the device's address, %d to %d "+
			"(0 is for everyone and answered by nobody, 248 to 255 are kept free; only Modbus TCP takes them)", c.Unit, lowest, highest))
	}
}

// unitRange is who can be asked: slaves on a line have 1 to 247 (Modbus over
// Serial Line V1.02, section 2.2); behind TCP the field is free, and 0 and 255
// mean the server itself (Messaging on TCP/IP V1.0b, section 4.4.1.2).
func unitRange(framing string) (lowest, highest int) {
	if framing == FramingTCP {
		return 0, 255
	}
	return 1, 247
}

// ValidatePoints reports what is wrong with the points of one poll of a device,
// by the point's place in points and its key.
func ValidatePoints(device DeviceConfig, points []PointConfig, report func(index int, key, problem string)) {
	names := make(map[string]bool, len(points))
	taken := make(map[cell][]claim)
	for i := range points {
		c := &points[i]
		problem := func(key, format string, args ...any) { report(i, key, fmt.Sprintf(format, args...)) }
		if err := record.CheckName(c.Name); err != nil {
			problem("name", "%q %v", c.Name, err)
		} else if names[c.Name] {
			problem("name", "%q is the name of an earlier point of this poll: give each a name of its own", c.Name)
		}
		names[c.Name] = true

		table, first, err := parseAddress(c.Address)
		if err != nil {
			problem("address", "%v", err)
			continue
		}
		c.checkAccess(table, problem)
		if !c.checkType(table, problem) {
			continue
		}
		c.checkBits(table, problem)
		c.checkOrder(problem)
		c.checkScale(problem)
		c.checkLimits(problem)
		p := c.point(table, first)
		switch {
		case !table.bits() && p.count > device.MaxRegisters:
			problem("type", "takes %d registers, and this device gives %d in one request (max_registers): a value is never read in two", p.count, device.MaxRegisters)
		case first+p.count-1 > maxAddress:
			problem("address", "%s:%d and %d more are beyond the last address %d: write %s:%d or less", table, first, p.count-1, maxAddress, table, maxAddress-p.count+1)
		default:
			p.claim(taken, i, func(other int) {
				problem("address", "overlaps the point %q (%s): read each register once, and scale or pick bits where it is used", points[other].Name, points[other].Address)
			})
		}
	}
}

type problemFunc = func(key, format string, args ...any)

func (c *PointConfig) checkAccess(table Table, problem problemFunc) {
	if c.Access == "rw" && !table.writable() {
		problem("access", `"rw" is for coils and holding registers, nothing can be written to %s: write "r"`, table)
	} else if n := c.registers(); c.Access == "rw" && n > MaxWriteRegisters {
		problem("access", `"rw" is for values that can be written in one request, of %d registers at most, and this one has %d: write "r"`, MaxWriteRegisters, n)
	}
}

// checkType tells whether the size of the value is known.
func (c *PointConfig) checkType(table Table, problem problemFunc) bool {
	switch {
	case table.bits() && c.Type != "" && c.Type != "bool":
		problem("type", "%q: %s holds single bits, write bool or leave it out", c.Type, table)
		return false
	case !table.bits() && c.Type == "":
		problem("type", "is missing: write what the register holds, such as int16 or float32")
		return false
	case !table.bits() && c.registers() == 0 && c.Type != "string":
		problem("type", "%q is no type: write bool, int16, uint16, int32, uint32, int64, uint64, float32, float64, string or bits", c.Type)
		return false
	case c.Type == "string" && (c.Length < 1 || c.Length > 2*MaxReadRegisters):
		problem("length", "a string needs its length in bytes: write length = 1 to %d", 2*MaxReadRegisters)
		return false
	case c.Type != "string" && c.Length != 0:
		problem("length", "is for type string: leave it out")
	}
	return true
}

func (c *PointConfig) checkBits(table Table, problem problemFunc) {
	switch {
	case c.Bit != 0 && table.bits():
		problem("bit", "picks a bit of a register, and %s holds single bits: leave it out", table)
	case c.Bit != 0 && c.Type != "bool" && c.Type != "bits":
		problem("bit", "is for the types bool and bits: leave it out, or write type = \"bits\"")
	case c.Bit < 0 || c.Bit > 15:
		problem("bit", "%d: a register has the bits 0 to 15", c.Bit)
	case c.Width > 1 && c.Type != "bits":
		problem("width", "is for type bits: leave it out, or write type = \"bits\"")
	case c.Type == "bits" && (c.Width < 1 || c.Bit+c.Width > 16):
		problem("width", "%d bits from bit %d on don't fit a register of 16: write 1 to %d", c.Width, c.Bit, 16-c.Bit)
	}
}

func (c *PointConfig) checkOrder(problem problemFunc) {
	switch c.Order {
	case "", "ABCD":
	case "CDAB", "BADC", "DCBA":
		if c.Type == "string" && c.Order != "BADC" {
			problem("order", "%q: the registers of a string stand in order, write ABCD, or BADC when the two bytes of each are swapped", c.Order)
		} else if c.Type != "string" && c.registers() < 2 {
			problem("order", "is for values of several registers and for strings: leave it out")
		}
	default:
		problem("order", "%q: write ABCD, CDAB, BADC or DCBA", c.Order)
	}
}

// number tells whether the value is one.
func (c *PointConfig) number() bool { return c.Type != "" && c.Type != "bool" && c.Type != "string" }

func (c *PointConfig) checkLimits(problem problemFunc) {
	switch finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }; {
	case len(c.Limits) == 0:
	case len(c.Limits) != 2 || !finite(c.Limits[0]) || !finite(c.Limits[1]):
		problem("limits", "are the lowest and the highest value: write two numbers, such as limits = [0, 100]")
	case c.Limits[0] > c.Limits[1]:
		problem("limits", "%v is more than %v: write the lowest value first", c.Limits[0], c.Limits[1])
	case c.Access != "rw":
		problem("limits", `bound what commands may write, and nothing writes this point: leave them out, or write access = "rw"`)
	case !c.number():
		problem("limits", "are for numbers: leave them out")
	}
}

func (c *PointConfig) checkScale(problem problemFunc) {
	switch {
	case !c.number() && (c.Scale != 1 || c.Offset != 0):
		problem("scale", "scale and offset are for numbers: leave them out")
	case c.Scale == 0 || math.IsNaN(c.Scale) || math.IsInf(c.Scale, 0):
		problem("scale", "%v leaves nothing of the value: write a number that is not 0, or leave it out", c.Scale)
	case math.IsNaN(c.Offset) || math.IsInf(c.Offset, 0):
		problem("offset", "%v leaves nothing of the value: write a number, or leave it out", c.Offset)
	}
}

// cell is one address of one table, and a claim the bits of it that a point
// takes.
type cell struct {
	table   Table
	address int
}

type claim struct {
	bits  uint16
	point int
}

// claim notes what p takes, and reports the first point that has it already.
func (p *point) claim(taken map[cell][]claim, index int, overlaps func(other int)) {
	reported := false
	for address := p.first; address < p.first+p.count; address++ {
		at := cell{p.table, address}
		for _, other := range taken[at] {
			if other.bits&p.mask() != 0 && !reported {
				overlaps(other.point)
				reported = true
			}
		}
		taken[at] = append(taken[at], claim{p.mask(), index})
	}
}
