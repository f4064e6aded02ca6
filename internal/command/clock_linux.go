package command

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bootClock reads CLOCK_BOOTTIME (clock_gettime(2)), which goes on while the
// machine is suspended, and the id that the kernel gives each boot (random(4)).
func bootClock() (boot string, since func() time.Duration, ok bool) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	boot = strings.TrimSpace(string(id))
	var ts unix.Timespec
	if err != nil || boot == "" || unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return "", nil, false
	}
	return boot, func() time.Duration {
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // it has worked before
		return time.Duration(now.Nano())
	}, true
}
