package serial

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// open returns a line that is set, claimed and empty.
func open(path string, config Config) (framed.Stream, error) {
	mode, err := config.mode()
	if err != nil {
		return nil, transport.Permanent(err)
	}
	// Ours first: once the library has set TIOCEXCL, nobody but root may open.
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, openError(err)
	}
	l := &line{closing: make(chan struct{})}
	if l.Descriptor, err = framed.NewDescriptor(file); err != nil {
		file.Close()
		return nil, openError(err)
	}
	if err := l.claim(); err != nil {
		file.Close()
		return nil, openError(err)
	}
	port, err := serial.Open(path, mode)
	if err != nil {
		// Either the settings are refused, or the device has just gone.
		if claimErr := l.claim(); claimErr != nil {
			err = claimErr
		}
		file.Close()
		return nil, openError(err)
	}
	l.control.port = port
	l.control.dropInput()
	return l, nil
}

// mode is the library's name for the settings.
func (c Config) mode() (*serial.Mode, error) {
	mode := &serial.Mode{BaudRate: c.Baud, DataBits: c.DataBits}
	switch c.Parity {
	case "none":
		mode.Parity = serial.NoParity
	case "even":
		mode.Parity = serial.EvenParity
	case "odd":
		mode.Parity = serial.OddParity
	case "mark":
		mode.Parity = serial.MarkParity
	case "space":
		mode.Parity = serial.SpaceParity
	default:
		return nil, fmt.Errorf("parity %q is none of none, even, odd, mark, space", c.Parity)
	}
	switch c.StopBits {
	case 1:
		mode.StopBits = serial.OneStopBit
	case 1.5, 2:
		// One bit in the UART: with 5 data bits it means 1.5. The library
		// refuses to be asked for 1.5.
		mode.StopBits = serial.TwoStopBits
	default:
		return nil, fmt.Errorf("stop_bits %v is none of 1, 1.5, 2", c.StopBits)
	}
	return mode, nil
}

// claim fails if the device is no terminal, or locked by another descriptor,
// also one of this process. The lock goes with the descriptor.
func (l *line) claim() error {
	var err error
	ctlErr := l.Control(func(fd uintptr) {
		if _, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil {
			err = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB)
		}
	})
	return errors.Join(ctlErr, err)
}

// openError says what is wrong with the device and what to do about it.
func openError(err error) error {
	var port *serial.PortError
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return missing("no such device: plug it in, or correct the path")
	case errors.Is(err, unix.EIO):
		return missing("the device does not answer: unplugged, or a port without hardware")
	case errors.Is(err, fs.ErrPermission):
		return transport.Permanent(errors.New("permission denied: add the agent's user to the group that owns the device (often dialout)"))
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EWOULDBLOCK):
		return transport.Permanent(errors.New("in use by another program or link: stop it, or choose another device"))
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EISDIR):
		return transport.Permanent(errors.New("not a serial port: correct the path"))
	case errors.As(err, &port):
		return transport.Permanent(fmt.Errorf("the port refuses these settings: %s", port.Error()))
	}
	return transport.Lost(err)
}

// missing is a device that is not there. It is of class transport.ErrLost, but
// nothing was lost.
type missing string

func (m missing) Error() string { return string(m) }

func (m missing) Is(target error) bool { return target == transport.ErrLost }
