package disk

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const controlName = ".disk"

// command is what Remote writes to the control file.
type command struct {
	Mark   string `json:",omitempty"`
	Inject *Fault `json:",omitempty"`
	Forget bool   `json:",omitempty"`
}

// Remote is how a program that works on a mounted disk talks to it. Each call has
// taken effect when it returns. Its methods may be called concurrently.
type Remote struct{ f *os.File }

// Dial opens the disk mounted in a directory. The caller closes it.
func Dial(dir string) (*Remote, error) {
	f, err := os.OpenFile(filepath.Join(dir, controlName), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("no test disk is mounted there: %w", err)
	}
	return &Remote{f}, nil
}

// Close lets go of the disk.
func (r *Remote) Close() error { return r.f.Close() }

func (r *Remote) send(c command) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = r.f.WriteAt(b, 0)
	return err
}

// Mark puts a mark into the trace, behind all that has happened.
func (r *Remote) Mark(text string) error { return r.send(command{Mark: text}) }

// Inject is Disk.Inject.
func (r *Remote) Inject(f Fault) error { return r.send(command{Inject: &f}) }

// Forget drops what the kernel caches of the disk's files, so that they are read
// from it again.
func (r *Remote) Forget() error { return r.send(command{Forget: true}) }

// Mend is Disk.Mend.
func (r *Remote) Mend() (fired int, err error) {
	var b [32]byte
	n, err := r.f.ReadAt(b[:], 0)
	if n == 0 {
		return 0, err
	}
	return strconv.Atoi(string(b[:n]))
}
