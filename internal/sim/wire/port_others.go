//go:build !linux

package wire

import (
	"errors"
	"os"
)

// settingOf fails, as there are pseudo-terminals on Linux only.
func settingOf(*os.File) (Setting, error) {
	return Setting{}, errors.New("wire: pseudo-terminals are made on Linux only")
}
