//go:build linux && (amd64 || arm64 || riscv64)

package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// controlID is the file that Remote talks to.
	controlID = 1 << 40

	// forEver: nobody but the kernel changes what it caches, and what a failed sync
	// changes it is told.
	forEver = 3600
)

// Mount serves the disk in a directory until unmount is called. It needs
// /dev/fuse and root.
func (d *Disk) Mount(dir string) (unmount func() error, err error) {
	fs := &bridge{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: d}
	server, err := fuse.NewServer(fs, dir, &fuse.MountOptions{
		FsName: "powercut", Name: "powercut", DirectMountStrict: true, MaxWrite: 256 << 10,
		ExplicitDataCacheControl: true, DisableXAttrs: true, DisableReadDirPlus: true,
		Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		return nil, fmt.Errorf("mounting a file system in %s, which needs root and /dev/fuse: %w", dir, err)
	}
	d.mu.Lock()
	d.forget = func(id uint64) { server.InodeNotify(id, 0, 0) }
	d.mu.Unlock()
	go server.Serve()
	unmount = func() error {
		// A process that was killed may still be letting go of its files.
		err := unix.Unmount(dir, unix.MNT_DETACH)
		server.Wait()
		return err
	}
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(err, unmount())
	}
	return unmount, nil
}

// bridge is the disk as go-fuse wants it.
type bridge struct {
	fuse.RawFileSystem
	disk *Disk
}

func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	return fuse.ToStatus(err)
}

// attr is called under the disk's lock.
func (b *bridge) attr(id uint64, out *fuse.Attr) bool {
	if id == controlID {
		*out = fuse.Attr{Ino: id, Mode: syscall.S_IFREG | 0o600, Nlink: 1}
		return true
	}
	n := b.disk.nodes[id]
	if n == nil {
		return false
	}
	*out = fuse.Attr{Ino: id, Mode: syscall.S_IFREG | 0o640, Nlink: 1, Size: uint64(n.size), Blocks: uint64(len(n.pages)) * pageSize / 512, Blksize: pageSize}
	if n.isDir() {
		out.Mode, out.Nlink, out.Size = syscall.S_IFDIR|0o750, 2, 0
	}
	return true
}

func (b *bridge) entry(id uint64, out *fuse.EntryOut) fuse.Status {
	if !b.attr(id, &out.Attr) {
		return fuse.ENOENT
	}
	out.NodeId, out.EntryValid, out.AttrValid = id, forEver, forEver
	return fuse.OK
}

func (b *bridge) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if header.NodeId == rootID && name == controlName {
		return b.entry(controlID, out)
	}
	parent := b.disk.nodes[header.NodeId]
	if parent == nil {
		return fuse.ENOENT
	}
	return b.entry(parent.entries[name], out)
}

func (b *bridge) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if !b.attr(in.NodeId, &out.Attr) {
		return fuse.ENOENT
	}
	out.AttrValid = forEver
	return fuse.OK
}

func (b *bridge) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok && in.NodeId != controlID {
		if err := b.disk.resize(in.NodeId, int64(size)); err != nil {
			return status(err)
		}
	}
	if !b.attr(in.NodeId, &out.Attr) {
		return fuse.ENOENT
	}
	out.AttrValid = forEver
	return fuse.OK
}

func (b *bridge) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	end := int64(in.Offset + in.Length)
	switch {
	case in.Mode&^unix.FALLOC_FL_KEEP_SIZE != 0:
		return fuse.Status(unix.EOPNOTSUPP)
	case in.Mode != 0 || end <= b.disk.nodes[in.NodeId].size:
		return status(b.disk.fault(Resize))
	}
	return status(b.disk.resize(in.NodeId, end))
}

func (b *bridge) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	id, err := b.disk.create(in.NodeId, name, false)
	if err != nil {
		return status(err)
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return b.entry(id, &out.EntryOut)
}

func (b *bridge) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	id, err := b.disk.create(in.NodeId, name, true)
	if err != nil {
		return status(err)
	}
	return b.entry(id, out)
}

func (b *bridge) Unlink(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	return status(b.disk.remove(header.NodeId, name))
}

func (b *bridge) Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return b.Unlink(cancel, header, name)
}

func (b *bridge) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if in.Flags != 0 {
		return fuse.EINVAL
	}
	return status(b.disk.rename(in.NodeId, name, in.Newdir, newName))
}

func (b *bridge) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId == controlID {
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
		return fuse.OK
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	if in.Flags&syscall.O_TRUNC == 0 {
		return fuse.OK
	}
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	return status(b.disk.resize(in.NodeId, 0))
}

func (b *bridge) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if in.NodeId == controlID {
		if in.Offset > 0 {
			return fuse.ReadResultData(nil), fuse.OK
		}
		// It mends the disk, and is how often that has failed.
		return fuse.ReadResultData(fmt.Append(buf[:0], b.disk.Mend())), fuse.OK
	}
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if err := b.disk.fault(Read); err != nil {
		return nil, status(err)
	}
	n := b.disk.nodes[in.NodeId].read(int64(in.Offset), buf)
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (b *bridge) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if in.NodeId == controlID {
		return uint32(len(data)), b.obey(data)
	}
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if err := b.disk.write(in.NodeId, int64(in.Offset), data); err != nil {
		return 0, status(err)
	}
	return uint32(len(data)), fuse.OK
}

func (b *bridge) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	b.disk.mu.Lock()
	forget, err := b.disk.sync(in.NodeId)
	notify := b.disk.forget
	b.disk.mu.Unlock()
	if forget {
		notify(in.NodeId)
	}
	return status(err)
}

func (b *bridge) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return b.Fsync(cancel, in)
}

func (b *bridge) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (b *bridge) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	dir := b.disk.nodes[in.NodeId]
	names := sortedNames(dir.entries)
	for i := int(in.Offset); i < len(names); i++ {
		id := dir.entries[names[i]]
		mode := uint32(syscall.S_IFREG)
		if b.disk.nodes[id].isDir() {
			mode = syscall.S_IFDIR
		}
		if !out.AddDirEntry(fuse.DirEntry{Name: names[i], Ino: id, Mode: mode, Off: uint64(i) + 1}) {
			break
		}
	}
	return fuse.OK
}

func (b *bridge) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: pageSize, Frsize: pageSize, NameLen: 255, Blocks: 1 << 24, Bfree: 1 << 23, Bavail: 1 << 23}
	return fuse.OK
}

func (b *bridge) obey(data []byte) fuse.Status {
	var c command
	if err := json.Unmarshal(data, &c); err != nil {
		return fuse.EINVAL
	}
	if c.Mark != "" {
		b.disk.Mark(c.Mark)
	}
	if c.Inject != nil {
		b.disk.Inject(*c.Inject)
	}
	if c.Forget {
		b.forgetAll()
	}
	return fuse.OK
}

func (b *bridge) forgetAll() {
	b.disk.mu.Lock()
	var files []uint64
	for id, n := range b.disk.nodes {
		if !n.isDir() {
			files = append(files, id)
		}
	}
	notify := b.disk.forget
	b.disk.mu.Unlock()
	slices.Sort(files)
	for _, id := range files {
		notify(id)
	}
}
