//go:build !linux

package clock

// Elsewhere nothing tells, and an unsure time must not pass for a sure one.
func synchronised() bool { return false }
