package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// becomeOwner makes the rest of the process run as the directory's owner, if root
// has started it: files that root makes there could not be opened by the agent.
func becomeOwner(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	err = errors.Join(syscall.Setgroups([]int{int(owner.Gid)}), syscall.Setgid(int(owner.Gid)), syscall.Setuid(int(owner.Uid)))
	if err != nil {
		return fmt.Errorf("to work as the owner of %s: %w; run this as that user", dir, err)
	}
	return nil
}
