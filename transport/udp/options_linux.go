package udp

import (
	"errors"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// setOptions forbids fragmenting (ip(7), IP_MTU_DISCOVER): a datagram of which
// one fragment gets lost is lost whole, and many firewalls drop fragments.
//
// It also asks which of our addresses a datagram comes to, where there are
// several, because the answer has to leave from the same (RFC 1122, section
// 4.1.3.5): the peer does not know the others.
func (s *socket) setOptions(raw syscall.RawConn) error {
	everywhere := s.everywhere()
	if everywhere && !s.notices {
		s.control = make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		family, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		set := func(level, option, value int) {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), level, option, value)
			}
		}
		v6 := family == unix.AF_INET6
		set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		if v6 {
			set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		}
		switch {
		case s.notices && v6:
			set(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		case s.notices:
			set(unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		case everywhere && v6:
			set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		case everywhere:
			set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
		failed = err
	})
	return errors.Join(err, failed)
}

// dropNotices empties the kernel's queue of notices, which counts against the
// socket's receive buffer.
func (s *socket) dropNotices() {
	raw, err := s.udp.SyscallConn()
	if err != nil {
		return
	}
	var control [512]byte
	_ = raw.Control(func(fd uintptr) {
		for {
			_, _, _, _, err := unix.Recvmsg(int(fd), nil, control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
}

// arrivedAt reads the address of ours from a control message: struct in_pktinfo
// of ip(7), and in6_pktinfo of RFC 3542, section 6.1, which on a socket for both
// families also tells of IPv4.
func arrivedAt(control []byte) netip.Addr {
	if len(control) == 0 {
		return netip.Addr{}
	}
	header, data, _, err := unix.ParseOneSocketControlMessage(control)
	switch {
	case err != nil:
	case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		return netip.AddrFrom4([4]byte(data[8:]))
	case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		return netip.AddrFrom16([16]byte(data))
	}
	return netip.Addr{}
}

// leaveFrom is the source for what answers a datagram to that address. The
// interface is left to the routes.
func leaveFrom(to netip.Addr) source {
	switch {
	case to.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: to.As4()})
	case to.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: to.As16()})
	}
	return nil
}
