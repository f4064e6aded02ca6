package file

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData returns when the bytes of f, and what is needed to find them again,
// are on disk: fdatasync(2), which spares the write of times that fsync does.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// lock takes the file for this process (flock(2)), without waiting. Closing f
// gives it back, and so does the end of the process, however it ends.
func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return errLocked
	}
	return os.NewSyscallError("flock", err)
}
