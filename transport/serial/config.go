package serial

import "time"

// Config is the serial table of a [[link]].
type Config struct {
	// Baud is the line's speed in bits a second.
	Baud int `toml:"baud" default:"9600" min:"50" max:"4000000"`
	// DataBits in a character: 5 to 8. Modbus RTU takes 8.
	DataBits int `toml:"data_bits" default:"8" min:"5" max:"8"`
	// Parity is "none", "even", "odd", "mark" or "space".
	Parity string `toml:"parity" default:"none" oneof:"none,even,odd,mark,space"`
	// StopBits is 1, 1.5 or 2.
	StopBits float64 `toml:"stop_bits" default:"1" oneof:"1,1.5,2"`
}

// Validate reports combinations that no UART can be set to; that each value is
// in its range is held by the tags. key is the setting to change.
//
// With 5 data bits a UART's longer stop is 1.5 bits, with more it is 2 (16550
// data sheet, line control register, bit 2).
func (c Config) Validate(report func(key, problem string)) {
	switch {
	case c.StopBits == 1.5 && c.DataBits != 5:
		report("stop_bits", "1.5 stop bits exist with 5 data bits only: write stop_bits = 1 or 2")
	case c.StopBits == 2 && c.DataBits == 5:
		report("stop_bits", "with 5 data bits, two stop bits can't be had: write stop_bits = 1 or 1.5")
	}
}

// charTime is how long a character takes on the wire: start bit, data bits,
// parity bit and stop bits.
func (c Config) charTime() time.Duration {
	bits := 1 + float64(c.DataBits) + c.StopBits
	if c.Parity != "none" {
		bits++
	}
	return time.Duration(bits / float64(c.Baud) * float64(time.Second))
}
