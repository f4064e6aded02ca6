package udp

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// socket is an open UDP socket. One goroutine may receive; the other methods
// may be called by anyone at any time.
type socket struct {
	udp     *net.UDPConn
	packets *packets
	notices bool // the network's notices about what was sent come back as errors

	// control is the reader's, for which of our addresses a datagram came to;
	// empty where the socket has one only.
	control []byte
}

// source is the address of ours that a datagram leaves from, as the kernel
// wants it; nil lets the kernel choose.
type source []byte

// receiveBuffer is what the kernel is asked to hold, in bytes, for when a burst
// finds the reader busy. It gives what net.core.rmem_max allows.
const receiveBuffer = 4 << 20

// newSocket takes over c. notices asks the kernel for the network's notices,
// such as that nobody listens there.
func newSocket(c *net.UDPConn, size int, notices bool) (*socket, error) {
	_ = c.SetReadBuffer(receiveBuffer)
	s := &socket{udp: c, packets: newPackets(size), notices: notices}
	raw, err := c.SyscallConn()
	if err == nil {
		err = s.setOptions(raw)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return s, nil
}

// everywhere: the socket takes what is sent to any address of the machine.
func (s *socket) everywhere() bool {
	return s.udp.LocalAddr().(*net.UDPAddr).IP.IsUnspecified()
}

// receive waits for a datagram. It fails with net.ErrClosed after close, and
// with what the network says about datagrams sent earlier.
func (s *socket) receive() (*packet, error) {
	p := s.packets.lend()
	n, controls, from, err := s.read(p.data)
	if err != nil {
		s.packets.takeBack(p)
		if s.notices && !errors.Is(err, net.ErrClosed) {
			s.dropNotices()
		}
		return nil, err
	}
	p.n, p.cut = n, n > s.packets.size
	p.to = arrivedAt(s.control[:controls])
	p.from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return p, nil
}

// read takes the shorter way through the kernel where no control is wanted.
func (s *socket) read(b []byte) (n, controls int, from netip.AddrPort, err error) {
	if len(s.control) == 0 {
		n, from, err = s.udp.ReadFromUDPAddrPort(b)
		return n, 0, from, err
	}
	n, controls, _, from, err = s.udp.ReadMsgUDPAddrPort(b, s.control)
	return n, controls, from, err
}

// write likewise.
func (s *socket) write(p []byte, to netip.AddrPort, from source) error {
	if len(from) == 0 {
		_, err := s.udp.WriteToUDPAddrPort(p, to)
		return err
	}
	_, _, err := s.udp.WriteMsgUDPAddrPort(p, from, to)
	return err
}

// send sends one datagram. That it got lost on the way is no error, and neither
// is that there is no way for the moment: routes come back.
func (s *socket) send(p []byte, to netip.AddrPort, from source) error {
	err := s.write(p, to, from)
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNREFUSED) {
		// It may have been a notice about an earlier datagram, or the source is
		// not ours any more, which is EINVAL.
		if s.notices {
			s.dropNotices()
		}
		if errors.Is(err, syscall.EINVAL) {
			from = nil
		}
		err = s.write(p, to, from)
	}
	switch {
	case err == nil, isNoWay(err):
		return nil
	case errors.Is(err, syscall.EMSGSIZE):
		return tooLargeForTheWay(len(p))
	}
	return lost(err)
}

func (s *socket) close() { _ = s.udp.Close() }
