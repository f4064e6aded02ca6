//go:build !linux

package udp

import (
	"net/netip"
	"syscall"
)

func (*socket) setOptions(syscall.RawConn) error { return nil }

func (*socket) dropNotices() {}

func arrivedAt([]byte) netip.Addr { return netip.Addr{} }

func leaveFrom(netip.Addr) source { return nil }
