// Package disk is a laboratory for power cuts and failing disks: a file system in
// memory that remembers in which order it was changed and what was synced, and
// fails when it is told to.
//
// A program works on the mounted [Disk], in a process of its own: one that serves
// a file system and maps a file of it waits for itself as soon as the garbage
// collector stops the world. It tells what it has promised by marks in the trace
// ([Remote.Mark]). Afterwards [Cutter.Image] makes from the [Trace], for any
// place in it and any seed, what a power cut there could have left. One run
// gives thousands of images, and none of them needs a mount.
//
// # What a power cut leaves
//
// What was synced is there. Of the rest, by the seed:
//
//   - Of the data of a file, any subset of its sectors of 512 bytes, each as any of
//     the writes left it: nothing, all, whole writes, a beginning that ends in a torn
//     write, or single sectors.
//   - The size of a file is as after any beginning of what changed it, whether or
//     not the data is there. Where data is not there, and nothing was before, are
//     zeros, or what some other file once held: ext4 with data=ordered keeps
//     that from happening, data=writeback does not.
//   - What happened to a directory (create, rename, unlink) is there up to some
//     place, in order: journalling file systems write changes to one directory in
//     order. Different directories don't wait for each other, and that a file is
//     synced does not make its name durable: ext4 does both, POSIX promises
//     neither. A rename between two directories is whole or not at all.
//
// fdatasync counts as fsync here: both make data and size durable.
//
// # A failed sync
//
// Linux may drop what it could not write and call it clean. So after an injected
// failure of a sync, some sectors that were not synced have got to the disk, the
// others are lost: no later sync brings them back, and a read past the page cache
// ([unix.O_DIRECT]) gives what was there before. Reads through the page cache and
// a map go on giving the new data from the kernel's memory, or, with
// [Fault.Forget], the old.
package disk

import (
	"math/rand/v2"
	"sync"
	"syscall"
)

const (
	pageSize   = 4096
	sectorSize = 512
	rootID     = 1 // as in FUSE
)

// Disk is the file system as running programs see it. All its methods may be
// called concurrently.
type Disk struct {
	mu     sync.Mutex
	nodes  map[uint64]*node
	last   uint64 // id given
	base   *Image
	ops    []op
	faults []*Fault
	fired  int
	random *rand.Rand
	forget func(id uint64) // drops the kernel's cache of a file; nil: not mounted
}

// node is a file or a directory.
type node struct {
	content
	entries map[string]uint64          // of a directory; nil: a file
	before  map[int64][sectorSize]byte // sectors changed since the last sync, as they were
}

func (n *node) isDir() bool { return n.entries != nil }

// New makes a disk that holds what an image does; nil: nothing. The seed says what
// failed syncs leave.
func New(image *Image, seed uint64) *Disk {
	if image == nil {
		image = &Image{nodes: map[uint64]*imageNode{rootID: {entries: map[string]uint64{}}}}
	}
	d := &Disk{base: image, last: rootID, random: rand.New(rand.NewPCG(seed, 0)), nodes: make(map[uint64]*node)}
	for id, n := range image.nodes {
		fresh := &node{content: n.clone(), before: make(map[int64][sectorSize]byte)}
		if n.entries != nil {
			fresh.entries = make(map[string]uint64, len(n.entries))
			for name, child := range n.entries {
				fresh.entries[name] = child
			}
		}
		d.nodes[id] = fresh
		d.last = max(d.last, id)
	}
	return d
}

// Trace is what has happened so far.
func (d *Disk) Trace() *Trace {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Trace{base: d.base, ops: d.ops[:len(d.ops):len(d.ops)]}
}

// Mark puts a mark into the trace.
func (d *Disk) Mark(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.record(op{Kind: opMark, Name: text})
}

func (d *Disk) record(o op) { d.ops = append(d.ops, o) }

// The rest are the operations of the file system, which the kernel asks for.

func (d *Disk) create(parent uint64, name string, dir bool) (uint64, error) {
	if err := d.fault(Create); err != nil {
		return 0, err
	}
	p := d.nodes[parent]
	if p == nil || !p.isDir() {
		return 0, syscall.ENOENT
	}
	if _, there := p.entries[name]; there {
		return 0, syscall.EEXIST
	}
	d.last++
	n := &node{content: newContent(), before: make(map[int64][sectorSize]byte)}
	if dir {
		n.entries = make(map[string]uint64)
	}
	d.nodes[d.last] = n
	p.entries[name] = d.last
	d.record(op{Kind: opLink, Node: d.last, Dir: parent, Name: name, IsDir: dir})
	return d.last, nil
}

func (d *Disk) remove(parent uint64, name string) error {
	if err := d.fault(Unlink); err != nil {
		return err
	}
	p := d.nodes[parent]
	id, there := p.entries[name]
	if !there {
		return syscall.ENOENT
	}
	if len(d.nodes[id].entries) > 0 {
		return syscall.ENOTEMPTY
	}
	delete(p.entries, name) // the node stays: it may be open, and the removal may get lost
	d.record(op{Kind: opUnlink, Dir: parent, Name: name})
	return nil
}

func (d *Disk) rename(from uint64, name string, to uint64, newName string) error {
	if err := d.fault(Rename); err != nil {
		return err
	}
	source, target := d.nodes[from], d.nodes[to]
	id, there := source.entries[name]
	if !there {
		return syscall.ENOENT
	}
	if old, there := target.entries[newName]; there && d.nodes[old].isDir() {
		return syscall.EEXIST
	}
	delete(source.entries, name)
	target.entries[newName] = id
	d.record(op{Kind: opRename, Node: id, Dir: from, Name: name, Dir2: to, Name2: newName})
	return nil
}

// write returns an error after some of the data was written, as a disk may.
func (d *Disk) write(id uint64, off int64, data []byte) error {
	failed := d.fault(Write)
	if failed != nil {
		data = data[:len(data)/2/sectorSize*sectorSize]
	}
	if len(data) > 0 {
		n := d.nodes[id]
		n.keep(off, off+int64(len(data)))
		n.write(off, data)
		d.record(op{Kind: opWrite, Node: id, Off: off, Data: append([]byte(nil), data...)})
	}
	return failed
}

func (d *Disk) resize(id uint64, size int64) error {
	if err := d.fault(Resize); err != nil {
		return err
	}
	d.nodes[id].resize(size)
	d.record(op{Kind: opResize, Node: id, Size: size})
	return nil
}

// sync returns whether the kernel's cache of the file has to be dropped.
func (d *Disk) sync(id uint64) (forget bool, err error) {
	n := d.nodes[id]
	kind := Sync
	if n.isDir() {
		kind = SyncDir
	}
	f := d.hit(kind)
	if f == nil {
		n.before = make(map[int64][sectorSize]byte)
		d.record(op{Kind: opSync, Node: id})
		return false, nil
	}
	if n.isDir() {
		return false, f.Err // its changes stay in the journal, to be written yet
	}
	dropped := op{Kind: opDropped, Node: id}
	for sector, old := range n.before {
		if at := sector * sectorSize; at < n.size && d.random.IntN(2) == 0 {
			size := n.size
			n.write(at, old[:])
			n.resize(size)
			dropped.Lost = append(dropped.Lost, extent{at, old})
		}
	}
	n.before = make(map[int64][sectorSize]byte)
	d.record(dropped)
	return f.Forget, f.Err
}

// keep remembers what the disk holds of a stretch that is about to be written.
func (n *node) keep(from, to int64) {
	for sector := from / sectorSize; sector*sectorSize < to; sector++ {
		if _, known := n.before[sector]; known {
			continue
		}
		var old [sectorSize]byte
		n.read(sector*sectorSize, old[:])
		n.before[sector] = old
	}
}
