// Package pty makes pseudo-terminal pairs: a serial line without hardware. What
// is written to the master arrives at the slave, which is a device file that a
// program opens like any serial port, and the other way round.
//
// A pty carries bytes at any speed. It takes a baud rate and remembers it, but
// neither parity nor 5, 6 or 7 data bits (Linux, drivers/tty/pty.c), nor modem
// lines.
package pty
