package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// identify finds out which file this is. Some file systems (FAT, most networks')
// draw inode numbers anew at each mount: there only a time of birth counts.
func identify(f *os.File) (id fileID) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st)
	if err == nil && st.Mask&unix.STATX_BTIME != 0 {
		id.birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	if err == nil && keepsInodes(f) {
		id.inode = st.Ino
	}
	return id
}

func keepsInodes(f *os.File) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &fs) != nil {
		return false
	}
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, ubifsMagic, unix.JFFS2_SUPER_MAGIC:
		return true
	}
	return false
}

const ubifsMagic = 0x24051905
