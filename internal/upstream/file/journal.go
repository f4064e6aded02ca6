package file

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
)

var errLocked = errors.New("another process has it locked; two agents can't share one file")

// journal is an open file that ends, whenever append is not at work, with the
// last line that is known to be on disk.
type journal struct {
	f    *os.File
	info fs.FileInfo          // which file it is, wherever its name points by now
	size int64                // bytes up to the end of the last synced line
	sync func(*os.File) error // syncData, unless a test plays a bad disk
}

// openJournal opens or makes the file, takes its lock and cuts a torn last line.
func openJournal(path string) (*journal, error) {
	// Read and write: the torn line has to be found. Opening a pipe would
	// otherwise wait for its reader for ever.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f, sync: syncData}
	if err := j.prepare(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) prepare() error {
	var err error
	if j.info, err = j.f.Stat(); err != nil {
		return err
	}
	if !j.info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", j.f.Name())
	}
	if err := lock(j.f); err != nil {
		return fmt.Errorf("%s: %w", j.f.Name(), err)
	}
	if j.size, err = endOfLastLine(j.f, j.info.Size()); err != nil {
		return err
	}
	if err := j.f.Truncate(j.size); err != nil {
		return err
	}
	if err := syncData(j.f); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(j.f.Name()))
}

// endOfLastLine looks backwards for the end of the last whole line. What stands
// behind it was never said to be delivered: a line is, once it is synced whole.
func endOfLastLine(f *os.File, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(0, end-int64(len(buf)))
		part := buf[:end-start]
		if _, err := f.ReadAt(part, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// syncFolder makes the file's name as durable as its content.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

// current tells whether path still leads to this file: logrotate may have moved
// it away, or somebody deleted it.
func (j *journal) current(path string) bool {
	now, err := os.Stat(path)
	return err == nil && os.SameFile(now, j.info)
}

// append returns when the pieces are on disk. Otherwise nothing of them is left in
// the file, unless even cutting it failed; then the journal must be opened anew.
//
// After a failed sync the kernel may hold the pages for clean although they are
// not on disk, so that syncing again would succeed and mean nothing. Cutting the
// file drops those pages, and the caller writes their content anew.
func (j *journal) append(pieces iter.Seq[[]byte]) (usable bool, err error) {
	info, err := j.f.Stat()
	if err != nil {
		return false, err
	}
	// Somebody truncated it (logrotate's copytruncate): its end is where it is now.
	if j.size = min(j.size, info.Size()); j.size < info.Size() {
		return false, fmt.Errorf("%s has grown by another hand", j.f.Name())
	}
	end, err := j.write(pieces)
	if err == nil {
		err = j.sync(j.f)
	}
	if err == nil {
		j.size = end
		return true, nil
	}
	return j.f.Truncate(j.size) == nil, err
}

// write writes each piece while the next one is made, and has the disk begin with
// it at once, so that little is left to wait for in the sync at the end. At most
// one piece is being written when the next is asked for.
func (j *journal) write(pieces iter.Seq[[]byte]) (end int64, err error) {
	end = j.size
	written := make(chan error, 1)
	written <- nil
	for piece := range pieces {
		if err := <-written; err != nil {
			return end, err
		}
		at := end
		end += int64(len(piece))
		go func() {
			_, err := j.f.Write(piece)
			startWriting(j.f, at, len(piece))
			written <- err
		}()
	}
	return end, <-written
}

func (j *journal) close() { _ = j.f.Close() }
