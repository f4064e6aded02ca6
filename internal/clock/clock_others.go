//go:build !linux

package clock

func thisMachine() Machine { return newProcess() }

func synchronised() bool { return false }
