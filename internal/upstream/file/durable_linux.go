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

// startWriting has the kernel begin to write a range of f to disk, without
// waiting (sync_file_range(2)). It promises nothing; syncData does, and is still
// told of a failure: only the flags that wait would take the news from it.
func startWriting(f *os.File, at int64, n int) {
	_ = unix.SyncFileRange(int(f.Fd()), at, int64(n), unix.SYNC_FILE_RANGE_WRITE) // a hint: it may fail
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
