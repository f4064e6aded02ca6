package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// verifyOnDisk reads a file past the page cache, which after a failed sync proves
// nothing, and compares it with what the page cache says. A file system that can't
// be read so (tmpfs) has no disk to disagree with.
func verifyOnDisk(path string) error {
	direct, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return err
	}
	defer direct.Close()
	cached, err := os.Open(path)
	if err != nil {
		return err
	}
	defer cached.Close()
	const chunk = 1 << 20
	// O_DIRECT wants memory aligned to the disk's blocks; a map is, to a page.
	onDisk, err := unix.Mmap(-1, 0, chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("memory to verify %s: %w", path, err)
	}
	defer func() { _ = unix.Munmap(onDisk) }()
	inCache := make([]byte, chunk)
	for at := int64(0); ; at += chunk {
		n, err := direct.ReadAt(onDisk, at)
		if at == 0 && errors.Is(err, unix.EINVAL) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		m, cachedErr := cached.ReadAt(inCache, at)
		if cachedErr != nil && !errors.Is(cachedErr, io.EOF) {
			return cachedErr
		}
		if !bytes.Equal(onDisk[:n], inCache[:m]) {
			return fmt.Errorf("%s: what the disk holds from byte %d on is not what was written", path, at)
		}
		if err != nil {
			return nil
		}
	}
}

// dropCache forgets what is cached of a file that is not in use. Linux caches a
// file in pieces as large as it was written or read, and counts (in /proc/pid/io)
// a whole piece as written when one page of it is. What comes back into the cache
// a page at a time, by reads of f or a map, is counted as it is.
func dropCache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// prefetch has the disk fetch a part of the file into the cache, and does not wait.
func prefetch(f *os.File, offset, size int64) {
	_ = unix.Fadvise(int(f.Fd()), offset, size, unix.FADV_WILLNEED)
}
