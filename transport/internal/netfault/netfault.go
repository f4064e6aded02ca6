// Package netfault says what the errors of package net and of the kernel mean,
// for the transports that open sockets: in classes of transport, in words that
// tell what to do, and without the types and addresses of the library.
package netfault

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// Unreached is why a connection did not come about. It is of class
// transport.ErrLost, but nothing was lost.
type Unreached string

// Error implements error.
func (u Unreached) Error() string { return string(u) }

// Is makes it a transport.ErrLost.
func (u Unreached) Is(target error) bool { return target == transport.ErrLost }

// Plain keeps the reason, and neither a library's types nor the addresses that
// the caller adds.
func Plain(err error) error {
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

// Ended is ctx's error if that is why dialing failed with err, else nil; reason
// is what it means when the time was over.
func Ended(ctx context.Context, err error, reason string) error {
	switch {
	case ctx.Err() != nil:
		return InTime(ctx.Err(), reason)
	case IsTimeout(err) && endsNow(ctx):
		<-ctx.Done()
		return InTime(ctx.Err(), reason)
	}
	return nil
}

// InTime puts a context's end into words: reason is why nothing had come about
// when its time was over. To errors.Is it stays context.DeadlineExceeded.
func InTime(err error, reason string) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return late(reason)
	}
	return err
}

type late string

func (l late) Error() string      { return string(l) }
func (late) Is(target error) bool { return target == context.DeadlineExceeded }

// IsTimeout: net gave up by its own clock. With several addresses each gets a
// share of the time, so this need not be the end of the context.
func IsTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// endsNow: net sees the context's deadline a moment before the context does.
func endsNow(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < 10*time.Millisecond
}

// Dial translates what dialing answered where the transport has nothing of its
// own to say: an address that can't be one, or a lack of permission, is
// permanent; of anything else nothing came about.
func Dial(err error) error {
	var address *net.AddrError
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) || errors.As(err, &address) {
		return transport.Permanent(Plain(err))
	}
	return Unreached(Plain(err).Error())
}

// NoWay says that no route leads to the peer.
func NoWay(err error) error {
	return Unreached(Plain(err).Error() + ": check the cable, the address and the route to it")
}

// Listen translates what net's ListenConfig answers. An address that the
// machine doesn't have may come with its interface, so it is not permanent.
func Listen(ctx context.Context, err error) error {
	var address *net.AddrError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, syscall.EADDRINUSE):
		return transport.Permanent(errors.New("another program listens on this address: stop it, or choose another port"))
	case errors.Is(err, syscall.EACCES):
		return transport.Permanent(errors.New("permission denied: ports below 1024 need a privilege; choose another port"))
	case errors.As(err, &address):
		return transport.Permanent(Plain(err))
	}
	return Plain(err)
}
