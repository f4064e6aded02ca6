//go:build !linux

package pty

import (
	"errors"
	"os"
)

// Open fails: pseudo-terminals are made on Linux only.
func Open() (master *os.File, slavePath string, err error) {
	return nil, "", errors.New("pty: made on Linux only")
}
