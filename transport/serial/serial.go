// Package serial carries messages over serial lines: RS-232, RS-485 through an
// adapter that switches by itself or a port that is told to, USB adapters,
// pseudo-terminals.
//
// go.bug.st/serial opens the port, sets the line, claims it and drains it. The
// bytes pass through a second descriptor of the same device, which the Go
// runtime polls, because the library's Read and Write keep none of the promises
// of a transport.Conn:
//
//   - its Read panics on a descriptor of 1024 or more (it uses select), and an
//     agent with many sockets has such;
//   - its read time-out may not be changed while a Read is under way;
//   - its Write has no time-out, doesn't finish a short write, goes on after
//     Close, and may then hit a descriptor that belongs to somebody else.
//
// A line is claimed in two ways, TIOCEXCL and flock, because the first doesn't
// stop root and the second only programs that ask.
//
// A device may be unplugged and come back under another number: who it is, by
// path or by USB, is looked up at each Dial. That it has gone is told by Read, and
// by Info().Lost while nobody reads.
//
// Serial lines work on Linux; elsewhere Dial fails with ErrPermanent.
package serial

import (
	"context"
	"errors"
	"fmt"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// ErrInUse is what Dial fails with, beside transport.ErrPermanent, when the
// device is open or locked already.
var ErrInUse = errors.New("in use by another program or link")

// readSize is how much one read may bring, in bytes: what the kernel buffers
// for a terminal (N_TTY_BUF_SIZE in Linux).
const readSize = 4 << 10

// Dialer opens one device. It may be used concurrently, but the device is open
// at most once at a time: a further Dial fails with ErrPermanent.
type Dialer struct {
	path   string // empty: usb says which
	usb    USB
	config Config
	roots  roots
	pool   *framed.Pool
	tally  tally
}

var _ transport.Dialer = (*Dialer)(nil)

// NewDialer takes the path of a device file, such as
// /dev/serial/by-id/usb-FTDI_FT232R-if00-port0. It need not exist yet.
func NewDialer(path string, config Config) *Dialer {
	return &Dialer{path: path, config: config, pool: framed.NewPool(readSize)}
}

// NewUSBDialer takes the identity of a USB adapter, which need not be plugged in
// yet. Each Dial looks for it anew.
func NewUSBDialer(usb USB, config Config) *Dialer {
	return &Dialer{usb: usb, config: config, roots: systemRoots(), pool: framed.NewPool(readSize)}
}

// Dial implements transport.Dialer. What the line said before is dropped. A
// device that is missing, or plugged out again, is of class ErrLost: it may
// appear. One that may not be opened, is in use, is no serial port, can't be set
// as configured or can't be told from another is of class ErrPermanent.
func (d *Dialer) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, d.fail(err)
	}
	if err := d.check(); err != nil {
		return nil, d.fail(transport.Permanent(err))
	}
	path := d.path
	if path == "" {
		var err error
		if path, err = d.roots.find(d.usb); err != nil {
			return nil, d.fail(err)
		}
	}
	stream, lost, err := open(path, d.config, &d.tally)
	if err != nil {
		return nil, d.fail(err)
	}
	return framed.New(stream, f, d.pool, transport.Info{
		Transport:  "serial",
		Remote:     path,
		HalfDuplex: true,
		Ordered:    true,
		CharTime:   d.config.CharTime(),
		Lost:       lost,
	}), nil
}

// Endpoint implements transport.Dialer.
func (d *Dialer) Endpoint() string {
	if d.path == "" {
		return "serial usb " + d.usb.String()
	}
	return "serial " + d.path
}

// Counters may be called at any time.
func (d *Dialer) Counters() Counters { return d.tally.counters() }

func (d *Dialer) fail(err error) error {
	return fmt.Errorf("%s: open: %w", d.Endpoint(), err)
}

// missing is a device that is not there. It is of class transport.ErrLost, but
// nothing was lost.
type missing string

func (m missing) Error() string { return string(m) }

func (m missing) Is(target error) bool { return target == transport.ErrLost }

// check holds what the configuration's tags hold, for a Config that did not
// come from a file.
func (d *Dialer) check() error {
	c := d.config
	var problems []error
	if c.Baud <= 0 || c.DataBits < 5 || c.DataBits > 8 {
		problems = append(problems, fmt.Errorf("no line can be set to %d baud with %d data bits", c.Baud, c.DataBits))
	}
	report := func(key, problem string) {
		problems = append(problems, fmt.Errorf("%s: %s", key, problem))
	}
	c.Validate(report)
	if c.RS485 != nil {
		c.RS485.Validate(report)
	}
	if d.path == "" {
		d.usb.Validate(report)
	}
	return errors.Join(problems...)
}
