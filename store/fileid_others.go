//go:build !linux

package store

import "os"

// identify: no two systems tell the time of birth alike.
func identify(*os.File) fileID { return fileID{} }
