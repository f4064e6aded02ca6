package serial

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// watch notices that a device hangs up while nobody reads or writes: a lane
// between two polls learns of it at once. It has a descriptor of its own, as a
// wait occupies one.
type watch struct {
	file  *os.File
	lost  chan struct{} // closed when the device has hung up
	ended chan struct{}
}

// newWatch starts watching. The caller ends it with close.
func newWatch(device *framed.Descriptor) (*watch, error) {
	var fd int
	var err error
	ctlErr := device.Control(func(original uintptr) {
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err := errors.Join(ctlErr, err); err != nil {
		return nil, err
	}
	w := &watch{file: os.NewFile(uintptr(fd), "serial"), lost: make(chan struct{}), ended: make(chan struct{})}
	raw, err := w.file.SyscallConn()
	if err != nil {
		w.file.Close()
		return nil, err
	}
	go func() {
		defer close(w.ended)
		// The runtime calls hungUp again whenever anything has happened to the
		// device. An error means that we were closed.
		if raw.Write(hungUp) == nil {
			close(w.lost)
		}
	}()
	return w, nil
}

// hungUp asks the kernel without waiting; see tty_vhangup in drivers/tty/tty_io.c.
func hungUp(fd uintptr) bool {
	for {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		}
	}
}

func (w *watch) close() {
	w.file.Close()
	<-w.ended
}
