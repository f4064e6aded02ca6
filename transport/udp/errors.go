package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
)

const (
	nobodyThere = "nothing listens there: check host and port, and that the peer runs"
	noName      = "no answer from the name server"
	noAnswer    = "no answer: check the address, that the peer runs and speaks DTLS, and that no firewall keeps UDP away"
)

// refused is ICMP's or ICMPv6's port unreachable.
func refused() error { return transport.Lost(errors.New(nobodyThere)) }

// tooLargeForTheWay: the network in between, or our own interface, says so.
func tooLargeForTheWay(size int) error {
	return fmt.Errorf("%w: a network on the way takes no datagram of %d bytes: set max_datagram lower; %d pass everywhere with IPv6",
		transport.ErrTooLarge, size, defaultDatagram)
}

// lost translates what a socket answered that is of no more use.
func lost(err error) error {
	switch {
	case errors.Is(err, net.ErrClosed):
		return net.ErrClosed
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused()
	}
	return transport.Lost(netfault.Plain(err))
}

// isNoWay: the cable is out, the interface down, a route or a neighbour missing.
func isNoWay(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN,
		syscall.EADDRNOTAVAIL, syscall.ENOBUFS,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// isNotice: something has happened to a datagram sent earlier, and the socket
// goes on.
func isNotice(err error) bool { return isNoWay(err) || errors.Is(err, syscall.EMSGSIZE) }

// dialError translates what net's Dialer answers.
func dialError(ctx context.Context, err error) error {
	if ended := netfault.Ended(ctx, err, noName); ended != nil {
		return ended
	}
	switch {
	case isNoWay(err):
		return netfault.NoWay(err)
	case netfault.IsTimeout(err):
		return netfault.Unreached(noName)
	}
	return netfault.Dial(err)
}
