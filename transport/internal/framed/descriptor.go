//go:build unix

package framed

import (
	"errors"
	"io"
	"syscall"
	"time"
)

// Descriptor is a Stream on a descriptor that the Go runtime polls: a TCP
// connection, or a device file opened without blocking. It reads with the
// kernel's call itself, because only then is memory needed no earlier than the
// bytes are there.
type Descriptor struct {
	file polled
	raw  syscall.RawConn

	// What Fill hands to attempt. Fields, so that a read allocates no closure.
	attempt func(fd uintptr) bool
	in      *Buffer
	wait    bool
	n       int
	err     error
}

// polled is *net.TCPConn or *os.File.
type polled interface {
	io.WriteCloser
	syscall.Conn
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

var _ Stream = (*Descriptor)(nil)

// NewDescriptor takes over file, unless it fails.
func NewDescriptor(file polled) (*Descriptor, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &Descriptor{file: file, raw: raw}
	d.attempt = d.read
	return d, nil
}

// Fill implements Stream.
func (d *Descriptor) Fill(in *Buffer, wait bool) (int, error) {
	d.in, d.wait = in, wait
	if err := d.raw.Read(d.attempt); err != nil {
		return 0, err
	}
	return d.n, d.err
}

// read returns false when the runtime shall wait until there is something to
// read, and call it again.
func (d *Descriptor) read(fd uintptr) bool {
	for {
		n, err := syscall.Read(int(fd), d.in.Space())
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			d.in.Release()
			d.n, d.err = 0, nil
			return !d.wait
		case err != nil:
			d.n, d.err = 0, err
		case n == 0:
			d.n, d.err = 0, io.EOF
		default:
			d.n, d.err = n, nil
		}
		return true
	}
}

// Write implements Stream.
func (d *Descriptor) Write(p []byte) (int, error) { return d.file.Write(p) }

// SetReadDeadline implements Stream.
func (d *Descriptor) SetReadDeadline(t time.Time) error { return d.file.SetReadDeadline(t) }

// SetWriteDeadline implements Stream.
func (d *Descriptor) SetWriteDeadline(t time.Time) error { return d.file.SetWriteDeadline(t) }

// Close implements Stream.
func (d *Descriptor) Close() error { return d.file.Close() }

// Control runs f on the descriptor, which stays open meanwhile.
func (d *Descriptor) Control(f func(fd uintptr)) error { return d.raw.Control(f) }
