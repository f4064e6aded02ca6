package serial

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// open returns a line that is set, claimed and empty, and a channel that is
// closed when the device hangs up. Its errors are counted in t.
func open(path string, config Config, t *tally) (stream framed.Stream, lost <-chan struct{}, err error) {
	mode, err := config.mode()
	if err != nil {
		return nil, nil, transport.Permanent(err)
	}
	// Ours first: once the library has set TIOCEXCL, nobody but root may open.
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) && justAppeared(path) {
			return nil, nil, missing("permission denied, but the device has only just appeared: its group may still be set")
		}
		return nil, nil, openError(err)
	}
	l := &line{closing: make(chan struct{}), tally: t}
	if err := l.take(file, path, config, mode); err != nil {
		if l.watch != nil {
			l.watch.close()
		}
		file.Close()
		return nil, nil, openError(err)
	}
	t.opened(l)
	return l, l.watch.lost, nil
}

// take makes a line of an open device. When it fails, what it has opened is
// closed, but for file and watch.
func (l *line) take(file *os.File, path string, config Config, mode *serial.Mode) (err error) {
	if l.Descriptor, err = framed.NewDescriptor(file); err != nil {
		return err
	}
	if err := l.claim(); err != nil {
		return err
	}
	if config.Echo {
		l.echo = &echo{bad: l.tally.badEcho}
	}
	if config.RS485 != nil {
		if err := l.rs485(*config.RS485); err != nil {
			return err
		}
	}
	if l.watch, err = newWatch(l.Descriptor); err != nil {
		return err
	}
	if l.control.port, err = serial.Open(path, mode); err != nil {
		// Either the settings are refused, or the device has just gone.
		return cmp.Or(l.claim(), err)
	}
	l.control.dropInput()
	return nil
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

// rs485 makes the port switch direction.
func (l *line) rs485(r RS485) error {
	var err error
	ctlErr := l.Control(func(fd uintptr) { err = setRS485(fd, r) })
	return errors.Join(ctlErr, err)
}

// settling is how long a new device file may still belong to root, until udev
// has given it its group.
const settling = 5 * time.Second

// justAppeared tells a device file so new that udev may be at work on it.
func justAppeared(path string) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return false
	}
	return time.Since(time.Unix(st.Ctim.Unix())).Abs() < settling
}

// openError says what is wrong with the device and what to do about it.
func openError(err error) error {
	var port *serial.PortError
	switch {
	case errors.Is(err, transport.ErrPermanent):
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return missing("no such device: plug it in, or correct the path")
	case errors.Is(err, unix.EIO):
		return missing("the device does not answer: unplugged, or a port without hardware")
	case errors.Is(err, fs.ErrPermission):
		return transport.Permanent(errors.New("permission denied: add the agent's user to the group that owns the device (often dialout)"))
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EWOULDBLOCK):
		return transport.Permanent(fmt.Errorf("%w: stop it, or choose another device", ErrInUse))
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EISDIR):
		return transport.Permanent(errors.New("not a serial port: correct the path"))
	case errors.As(err, &port):
		return transport.Permanent(fmt.Errorf("the port refuses these settings: %s", port.Error()))
	}
	return transport.Lost(err)
}
