package disk

import "syscall"

// Kind is a set of kinds of operations.
type Kind uint16

// Kinds of operations.
const (
	Write Kind = 1 << iota
	Sync
	SyncDir
	Resize
	Create
	Rename
	Unlink
	Read

	// Changes are all that change the disk.
	Changes = Write | Sync | SyncDir | Resize | Create | Rename | Unlink
)

// Fault makes operations fail.
type Fault struct {
	Kinds  Kind
	Nth    int // of these kinds, counted from the time it is injected, the first to fail: 1 is the next
	Count  int // how many fail; 0: all from then on
	Err    syscall.Errno
	Forget bool // with a failed sync the kernel's cache of the file goes, too

	seen int
}

// Inject adds a fault to those there are.
func (d *Disk) Inject(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, &f)
}

// Mend ends all faults, and returns how often one was met since the last Mend.
func (d *Disk) Mend() (fired int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fired, d.fired, d.faults = d.fired, 0, nil
	return fired
}

// hit counts an operation, and returns the fault that it meets.
func (d *Disk) hit(kind Kind) (met *Fault) {
	for _, f := range d.faults {
		if f.Kinds&kind == 0 {
			continue
		}
		f.seen++
		if f.seen >= f.Nth && (f.Count == 0 || f.seen < f.Nth+f.Count) {
			met = f
		}
	}
	if met != nil {
		d.fired++
	}
	return met
}

func (d *Disk) fault(kind Kind) error {
	if f := d.hit(kind); f != nil {
		return f.Err
	}
	return nil
}
