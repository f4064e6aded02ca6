package wire

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// settingOf asks a pseudo-terminal's master how the program has set its end:
// they share their settings.
func settingOf(master *os.File) (Setting, error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return Setting{}, err
	}
	var t *unix.Termios
	ctlErr := raw.Control(func(fd uintptr) { t, err = unix.IoctlGetTermios(int(fd), unix.TCGETS2) })
	if err := errors.Join(ctlErr, err); err != nil {
		return Setting{}, err
	}
	s := Setting{Baud: int(t.Ospeed), OddParity: t.Cflag&unix.PARODD != 0, StopBits: 1}
	if t.Cflag&unix.CSTOPB != 0 {
		s.StopBits = 2
	}
	return s, nil
}
