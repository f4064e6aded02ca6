package serial

// Counters are errors on the lines that a Dialer has opened, since it was made.
// They rise, over hang-ups and new adapters; what was counted between the last
// look and an unplugging is lost with the driver that knew it.
type Counters struct {
	// As the kernel's driver counts them (TIOCGICOUNT); 0 where it doesn't, as
	// for a pseudo-terminal.
	Parity        uint64 `json:"parity"`         // characters with a wrong parity bit
	Framing       uint64 `json:"framing"`        // characters without a stop bit: noise, or another speed
	Overrun       uint64 `json:"overrun"`        // characters that the UART had no room for
	Break         uint64 `json:"break"`          // the line stood at 0 for longer than a character
	BufferOverrun uint64 `json:"buffer_overrun"` // the kernel's buffer was full: nobody read

	// Echo counts what came back other than it was sent, or never, on a line with echo.
	Echo uint64 `json:"echo"`
}
