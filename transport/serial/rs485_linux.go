package serial

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport"
)

// rs485 is struct serial_rs485 of linux/serial.h, the same on every machine.
type rs485 struct {
	flags       uint32
	delayBefore uint32 // ms
	delayAfter  uint32 // ms
	_           [5]uint32
}

// The size that the kernel copies; another does not compile.
var _ = [1]struct{}{}[unsafe.Sizeof(rs485{})-32]

// SER_RS485_… of linux/serial.h.
const (
	rs485Enabled      = 1 << 0
	rs485RTSOnSend    = 1 << 1
	rs485RTSAfterSend = 1 << 2
	rs485RXDuringTX   = 1 << 4
	rs485Terminate    = 1 << 5
)

// kernel is r as the kernel takes it.
func (r RS485) kernel() rs485 {
	k := rs485{
		flags:       rs485Enabled,
		delayBefore: uint32(r.DelayBefore / time.Millisecond),
		delayAfter:  uint32(r.DelayAfter / time.Millisecond),
	}
	for _, f := range []struct {
		on   bool
		flag uint32
	}{
		{r.RTSOnSend, rs485RTSOnSend},
		{r.RTSAfterSend, rs485RTSAfterSend},
		{r.RXDuringTX, rs485RXDuringTX},
		{r.Terminate, rs485Terminate},
	} {
		if f.on {
			k.flags |= f.flag
		}
	}
	return k
}

// errNoRS485 is a driver's answer that says, or shows, that it can't.
var errNoRS485 = errors.New("this port cannot switch direction itself, as its driver does not know TIOCSRS485: " +
	"remove rs485 and use an adapter that switches by itself, or use another port")

// setRS485 makes the driver switch direction, and holds it to that: some take
// the call and ignore it, or part of it.
func setRS485(fd uintptr, r RS485) error {
	want, got := r.kernel(), rs485{}
	set := want // the kernel writes what it made of it
	err := ioctl(fd, unix.TIOCSRS485, unsafe.Pointer(&set))
	if err == nil {
		err = ioctl(fd, unix.TIOCGRS485, unsafe.Pointer(&got))
	}
	switch {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return transport.Permanent(errNoRS485)
	case err != nil:
		return err
	}
	return transport.Permanent(want.compare(got))
}

// compare says in the words of the configuration what the driver did not do.
func (k rs485) compare(got rs485) error {
	if got.flags&rs485Enabled == 0 {
		return errNoRS485
	}
	var differ []string
	for _, f := range []struct {
		key  string
		flag uint32
	}{
		{"rts_on_send", rs485RTSOnSend},
		{"rts_after_send", rs485RTSAfterSend},
		{"rx_during_tx", rs485RXDuringTX},
		{"terminate", rs485Terminate},
	} {
		if is := got.flags & f.flag; is != k.flags&f.flag {
			differ = append(differ, fmt.Sprintf("%s = %v", f.key, is != 0))
		}
	}
	if got.delayBefore != k.delayBefore {
		differ = append(differ, fmt.Sprintf("delay_before = \"%dms\"", got.delayBefore))
	}
	if got.delayAfter != k.delayAfter {
		differ = append(differ, fmt.Sprintf("delay_after = \"%dms\"", got.delayAfter))
	}
	if differ == nil {
		return nil
	}
	return fmt.Errorf("this port's driver does not do RS-485 as configured, but with %s: write that in rs485, or use another port", strings.Join(differ, ", "))
}

func ioctl(fd uintptr, request uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}
