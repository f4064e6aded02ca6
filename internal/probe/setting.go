package probe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/transport/serial"
)

// Setting is how a serial line is set; the zero Setting is a network, where
// there is nothing to set.
type Setting struct {
	Baud   int
	Format Format
}

func (s Setting) String() string {
	if s == (Setting{}) {
		return "the network"
	}
	return fmt.Sprintf("%d %s", s.Baud, s.Format)
}

// wireTime is how long a request for one value and its reply are on the wire,
// with the silence around them: 8 and 7 characters, and twice 3.5 (Modbus over
// Serial Line V1.02, section 2.5.1.1, which has 1.75 ms for these at most
// speeds; it does not matter here).
func (s Setting) wireTime() time.Duration {
	if s.Baud == 0 {
		return 0
	}
	return 2*2*time.Millisecond + (8+7+2*7/2)*s.charTime()
}

func (s Setting) charTime() time.Duration {
	return time.Duration(s.Format.bits()) * time.Second / time.Duration(s.Baud)
}

// Format is a character: 8 data bits, parity, stop bits.
type Format struct {
	Parity   string // "none", "even" or "odd"
	StopBits int    // 1 or 2
}

// ParseFormat reads such as 8E1.
func ParseFormat(s string) (Format, error) {
	parities := map[byte]string{'N': "none", 'E': "even", 'O': "odd"}
	up := strings.ToUpper(s)
	if len(up) != 3 || parities[up[1]] == "" || up[2] != '1' && up[2] != '2' {
		return Format{}, fmt.Errorf("%q is no format: write such as 8E1 (8 data bits; N, E or O for the parity; 1 or 2 stop bits)", s)
	}
	if up[0] != '8' {
		return Format{}, fmt.Errorf("%q: Modbus RTU has 8 data bits: write 8%s", s, up[1:])
	}
	return Format{Parity: parities[up[1]], StopBits: int(up[2] - '0')}, nil
}

func (f Format) String() string {
	if f.Parity == "" {
		return ""
	}
	return fmt.Sprintf("8%c%d", strings.ToUpper(f.Parity)[0], f.StopBits)
}

// bits of a character, start bit included.
func (f Format) bits() int {
	bits := 1 + 8 + f.StopBits
	if f.Parity != "none" {
		bits++
	}
	return bits
}

// Bauds are the speeds that devices on serial lines have, the commonest first.
func Bauds() []int { return []int{9600, 19200, 38400, 115200, 57600, 4800, 2400, 1200} }

// Formats are those of Modbus RTU (Modbus over Serial Line V1.02, section
// 2.5.1): even parity is what it asks for, without it a device should have two
// stop bits, and most that are sold have one.
func Formats() []Format {
	return []Format{{"even", 1}, {"none", 1}, {"none", 2}, {"odd", 1}}
}

// Settings puts speeds and formats in the order in which it pays to try them:
// all speeds in the first two formats, then in the next two. known, unless zero,
// comes first.
func Settings(known Setting, bauds []int, formats []Format) []Setting {
	var list []Setting
	if known != (Setting{}) {
		list = append(list, known)
	}
	for pair := range slices.Chunk(formats, 2) {
		for _, baud := range bauds {
			for _, format := range pair {
				if s := (Setting{baud, format}); !slices.Contains(list, s) {
					list = append(list, s)
				}
			}
		}
	}
	return list
}

// ParseUnits reads such as 1-10,17,247; units are from lowest to highest.
func ParseUnits(s string, lowest, highest int) ([]int, error) {
	var units []int
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err != nil || err2 != nil || first < lowest || last > highest || first > last {
			return nil, fmt.Errorf("%q are no units: write such as 1-10,17 with numbers from %d to %d", part, lowest, highest)
		}
		for unit := first; unit <= last; unit++ {
			if !slices.Contains(units, unit) {
				units = append(units, unit)
			}
		}
	}
	return units, nil
}

// Units is from first to last.
func Units(first, last int) []int {
	units := make([]int, 0, last-first+1)
	for unit := first; unit <= last; unit++ {
		units = append(units, unit)
	}
	return units
}

// FormatOf is the format of a serial line's configuration; false for one that
// Modbus RTU does not have.
func FormatOf(c serial.Config) (Format, bool) {
	f := Format{Parity: c.Parity, StopBits: int(c.StopBits)}
	_, err := ParseFormat(f.String())
	return f, err == nil && c.DataBits == 8 && float64(f.StopBits) == c.StopBits
}
