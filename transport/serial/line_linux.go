package serial

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// line is an open device: a descriptor for the bytes, and the library's port
// for the rest.
type line struct {
	*framed.Descriptor
	control control
	expiry  framed.Deadline // the write deadline, for the time after the last byte was handed over
	closing chan struct{}
	watch   *watch
	tally   *tally
	echo    *echo // nil where what is sent does not come back
}

var _ framed.Stream = (*line)(nil)

var errUnplugged = errors.New("the device hung up: unplugged?")

// Fill leaves the echo out, and names what a line that hangs up answers, which
// tells a user nothing.
func (l *line) Fill(in *framed.Buffer, wait bool) (int, error) {
	for {
		n, err := l.Descriptor.Fill(in, wait)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.EIO) {
			err = errUnplugged
		}
		if l.echo == nil || n == 0 || err != nil {
			return n, err
		}
		read := in.Space()[:n]
		if n = copy(read, read[l.echo.heard(read):]); n > 0 {
			return n, nil
		}
	}
}

// Write returns when the last bit has left, as far as the driver can tell. When
// it fails, what has not left is dropped, so that nothing is sent late.
func (l *line) Write(p []byte) (int, error) {
	l.control.setWriting(true)
	defer l.control.setWriting(false)
	if l.echo != nil {
		l.echo.sent(p)
	}
	n, err := l.Descriptor.Write(p)
	if err == nil {
		err = l.drain()
	}
	if err != nil {
		l.control.dropOutput()
	}
	return n, err
}

// drain waits in a goroutine of its own, because nothing interrupts the kernel
// there: it returns when the driver has sent or dropped its bytes, or the
// device is gone. Write does not wait for it longer than its deadline.
func (l *line) drain() error {
	drained := make(chan error, 1)
	go func() { drained <- l.control.drain() }()
	select {
	case err := <-drained:
		return err
	case <-l.expiry.Passed():
		return os.ErrDeadlineExceeded
	case <-l.closing:
		return os.ErrClosed
	}
}

func (l *line) SetWriteDeadline(t time.Time) error {
	l.expiry.Set(t)
	return l.Descriptor.SetWriteDeadline(t)
}

func (l *line) Close() error {
	close(l.closing)
	l.expiry.Set(time.Time{})
	l.tally.closing(l)
	l.watch.close()
	// The claim on the device is given up first, so that whoever finds the lock
	// free finds the port free too.
	return errors.Join(l.control.close(), l.Descriptor.Close())
}

// control guards the library's port. The port must not be closed under a call:
// its number could by then be another file's.
type control struct {
	mu       sync.Mutex
	port     serial.Port
	writing  bool
	draining bool
	closed   bool
}

func (c *control) setWriting(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = on
}

// drain closes the port itself if that was asked for meanwhile.
func (c *control) drain() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return os.ErrClosed
	}
	c.draining = true
	c.mu.Unlock()

	err := c.port.Drain()
	for errors.Is(err, unix.EINTR) {
		err = c.port.Drain()
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = false
	if c.closed {
		return errors.Join(err, c.port.Close())
	}
	return err
}

// dropInput and dropOutput are best effort: a device that refuses them is on
// its way out, and the next read says so.
func (c *control) dropInput() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		_ = c.port.ResetInputBuffer()
	}
}

func (c *control) dropOutput() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		_ = c.port.ResetOutputBuffer()
	}
}

// close drops what an unfinished Write has left behind. Otherwise the kernel
// would wait for it, 30 s by default (closing_wait in setserial(8)).
func (c *control) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.writing {
		_ = c.port.ResetOutputBuffer()
	}
	if c.draining {
		return nil
	}
	return c.port.Close()
}
