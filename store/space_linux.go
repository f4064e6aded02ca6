package store

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskFree is how many bytes the file system of path has free for this process, and in
// all.
func diskFree(path string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail * uint64(st.Bsize)), int64(st.Blocks * uint64(st.Bsize)), nil
}

// takeBlocks has the disk set blocks aside for a part of a file, also behind its end;
// its size stays.
func takeBlocks(f *os.File, from, to int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, from, to-from)
}

// writeOut has the disk write a file's data, and waits for it. It makes nothing durable:
// the sync that does has little left to do then, and keeps nobody else's waiting.
func writeOut(f *os.File) error {
	err := unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESPIPE) {
		return f.Sync()
	}
	return err
}
