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
	// RS485 is for a port of the gateway itself that drives an RS-485 line and
	// switches its direction with RTS: rs485 = {} does it in the usual way. Leave
	// it out for an adapter that switches by itself, as almost all on USB do.
	RS485 *RS485 `toml:"rs485"`
	// Echo is for an adapter that hears what it sends, as many two-wire ones do:
	// what comes back is compared with what was sent and left out. Where it
	// differs, somebody else spoke or the line is disturbed; that is counted.
	Echo bool `toml:"echo" default:"false"`
}

// RS485 is the rs485 table of a serial line: how the kernel's driver switches
// between sending and listening. A port whose driver can't do all of it is
// refused. The port keeps these settings after the agent has closed it.
//
// The keys are those of Linux' struct serial_rs485
// (Documentation/driver-api/serial/serial-rs485.rst).
type RS485 struct {
	// RTSOnSend is the level of RTS while sending: true is high, which makes most
	// transceivers drive the line.
	RTSOnSend bool `toml:"rts_on_send" default:"true"`
	// RTSAfterSend is the level of RTS while listening, the opposite of RTSOnSend.
	RTSAfterSend bool `toml:"rts_after_send" default:"false"`
	// DelayBefore is the time from switching to the first bit, in whole milliseconds.
	DelayBefore time.Duration `toml:"delay_before" default:"0s" min:"0s" max:"100ms"`
	// DelayAfter is the time from the last bit to switching back, in whole milliseconds.
	DelayAfter time.Duration `toml:"delay_after" default:"0s" min:"0s" max:"100ms"`
	// RXDuringTX keeps the receiver on while sending, so that the port hears
	// itself; then set echo in the serial table as well.
	RXDuringTX bool `toml:"rx_during_tx" default:"false"`
	// Terminate switches the port's own terminating resistor on.
	Terminate bool `toml:"terminate" default:"false"`
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
	if c.RS485 != nil && c.RS485.RXDuringTX && !c.Echo {
		report("echo", "with rx_during_tx, the port hears itself: write echo = true, or remove rx_during_tx")
	}
}

// maxDelay is the longest delay that the kernel takes (RS485_MAX_RTS_DELAY in
// drivers/tty/serial/serial_core.c).
const maxDelay = 100 * time.Millisecond

// Validate reports settings that no driver can carry out.
func (r RS485) Validate(report func(key, problem string)) {
	if r.RTSOnSend == r.RTSAfterSend {
		report("rts_after_send", "RTS has the same level for sending and listening, so nothing would switch: write the opposite of rts_on_send")
	}
	for _, delay := range []struct {
		key string
		is  time.Duration
	}{{"delay_before", r.DelayBefore}, {"delay_after", r.DelayAfter}} {
		if delay.is < 0 || delay.is > maxDelay || delay.is%time.Millisecond != 0 {
			report(delay.key, "a driver counts whole milliseconds, up to 100: write such as \"1ms\"")
		}
	}
}

// CharTime is how long a character takes on the wire: start bit, data bits,
// parity bit and stop bits.
func (c Config) CharTime() time.Duration {
	bits := 1 + float64(c.DataBits) + c.StopBits
	if c.Parity != "none" {
		bits++
	}
	return time.Duration(bits / float64(c.Baud) * float64(time.Second))
}
