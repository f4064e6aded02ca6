//go:build !(linux && (amd64 || arm64 || riscv64))

package disk

import "errors"

// Mount does not work here: go-fuse knows Linux on 64 bits only.
func (d *Disk) Mount(string) (unmount func() error, err error) {
	return nil, errors.ErrUnsupported
}
