package serial

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// findUsers notes who has which of ports.
func (r roots) findUsers(ports []Port) {
	locked, open := r.locks(), r.openDevices()
	for i := range ports {
		p := &ports[i]
		file, err := filepath.EvalSymlinks(p.Path)
		if err != nil {
			continue
		}
		pid, used := open[file]
		if !used {
			pid, used = locked[inode(file)]
		}
		if used {
			p.State, p.User = InUse, r.program(pid)
		}
	}
}

// program is a process as its owner knows it; empty if it is hidden.
func (r roots) program(pid int) string {
	name := attribute(filepath.Join(r.proc, strconv.Itoa(pid)), "comm")
	if name == "" {
		return ""
	}
	return fmt.Sprintf("%s (%d)", name, pid)
}

// locks reads who holds flocks, by inode, from /proc/locks, which all may read:
//
//	1: FLOCK  ADVISORY  WRITE 812 00:06:97 0 EOF
//
// See proc_locks(5). A line with an arrow is of one who waits.
func (r roots) locks() map[string]int {
	holders := make(map[string]int)
	text, _ := os.ReadFile(filepath.Join(r.proc, "locks"))
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil {
			holders[f[5]] = pid
		}
	}
	return holders
}

// inode names a file as /proc/locks does.
func inode(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	dev := uint64(st.Dev) //nolint:unconvert // 32 bits wide on mips
	return fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), st.Ino)
}

// openDevices reads which process has which device file open, as far as we may
// see.
func (r roots) openDevices() map[string]int {
	users := make(map[string]int)
	descriptors, _ := filepath.Glob(filepath.Join(r.proc, "[0-9]*", "fd", "*"))
	for _, d := range descriptors {
		file, err := os.Readlink(d)
		if err != nil || !strings.HasPrefix(file, "/dev/") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(d)))); err == nil {
			users[file] = pid
		}
	}
	return users
}
