package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// unreached is a Conn that did not come about. It is of class
// transport.ErrLost, but nothing was lost.
type unreached string

func (u unreached) Error() string { return string(u) }

func (u unreached) Is(target error) bool { return target == transport.ErrLost }

const nobodyThere = "nothing listens there: check host and port, and that the peer runs"

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
	return transport.Lost(plain(err))
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
	var address *net.AddrError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case isTimeout(err) && endsNow(ctx):
		<-ctx.Done()
		return ctx.Err()
	case isNoWay(err):
		return unreached(plain(err).Error() + ": check the cable, the address and the route to it")
	case isTimeout(err):
		return unreached("no answer from the name server")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.As(err, &address):
		return transport.Permanent(plain(err))
	}
	return unreached(plain(err).Error())
}

// isTimeout: net gave up by its own clock.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// endsNow: net sees the context's deadline a moment before the context does.
func endsNow(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < 10*time.Millisecond
}

// listenError translates what net's ListenConfig answers. An address that the
// machine doesn't have may come with its interface, so it is not permanent.
func listenError(ctx context.Context, err error) error {
	var address *net.AddrError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, syscall.EADDRINUSE):
		return transport.Permanent(errors.New("another program listens on this address: stop it, or choose another port"))
	case errors.Is(err, syscall.EACCES):
		return transport.Permanent(errors.New("permission denied: ports below 1024 need a privilege; choose another port"))
	case errors.As(err, &address):
		return transport.Permanent(plain(err))
	}
	return plain(err)
}

// plain keeps the reason, and neither net's types nor the addresses that the
// caller adds.
func plain(err error) error {
	var errno syscall.Errno
	var op *net.OpError
	switch {
	case errors.As(err, &errno):
		return errno
	case errors.As(err, &op):
		return errors.New(op.Err.Error())
	}
	return errors.New(err.Error())
}
