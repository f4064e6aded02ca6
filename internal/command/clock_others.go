//go:build !linux

package command

import "time"

func bootClock() (boot string, since func() time.Duration, ok bool) { return "", nil, false }
