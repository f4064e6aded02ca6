package pty

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open makes a pair in raw mode: no echo, no line editing, no translation of
// bytes. The caller closes master, and the pair goes with it.
//
// master obeys read and write deadlines, and Close unblocks its reads. Reading
// it waits until the slave is opened for the first time; once the slave's last
// user has closed it, reading fails with EIO until it is opened again.
func Open() (master *os.File, slavePath string, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", fmt.Errorf("pty: %w", err)
	}
	// Control, because File.Fd would make the descriptor blocking.
	raw, err := master.SyscallConn()
	if err == nil {
		var ctlErr error
		err = raw.Control(func(fd uintptr) { slavePath, ctlErr = prepare(int(fd)) })
		if err == nil {
			err = ctlErr
		}
	}
	if err != nil {
		master.Close()
		return nil, "", fmt.Errorf("pty: %w", err)
	}
	return master, slavePath, nil
}

// prepare unlocks the slave and names it; see pts(4).
func prepare(master int) (slavePath string, err error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return "", fmt.Errorf("unlock: %w", err)
	}
	number, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return "", fmt.Errorf("number: %w", err)
	}
	// On a master, the settings are those of its slave.
	settings, err := unix.IoctlGetTermios(master, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("settings: %w", err)
	}
	makeRaw(settings)
	if err := unix.IoctlSetTermios(master, unix.TCSETS, settings); err != nil {
		return "", fmt.Errorf("settings: %w", err)
	}
	return "/dev/pts/" + strconv.FormatUint(uint64(number), 10), nil
}

// makeRaw is cfmakeraw(3).
func makeRaw(t *unix.Termios) {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
}
