package tcp

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// unreached is a connection that did not come about. It is of class
// transport.ErrLost, but nothing was lost.
type unreached string

func (u unreached) Error() string { return string(u) }

func (u unreached) Is(target error) bool { return target == transport.ErrLost }

// dialError translates what net's Dialer answers.
func dialError(ctx context.Context, err error) error {
	var address *net.AddrError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case isTimeout(err) && endsNow(ctx):
		<-ctx.Done()
		return ctx.Err()
	case errors.Is(err, syscall.ECONNREFUSED):
		return unreached("connection refused: nothing listens there; check host and port, and that the peer runs")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return unreached(plain(err).Error() + ": check the cable, the address and the route to it")
	case isTimeout(err), errors.Is(err, syscall.ETIMEDOUT):
		return unreached("no answer: check the address, and that no firewall is in the way")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.As(err, &address):
		return transport.Permanent(plain(err))
	}
	return unreached(plain(err).Error())
}

// tlsDialError says of a handshake that failed what dialError says of a
// connection: nothing was lost, it did not come about.
func tlsDialError(err error) error {
	var end refused
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &end) && end.settled:
		return transport.Permanent(errors.New(end.reason))
	case errors.As(err, &end):
		return unreached(end.reason)
	}
	return unreached("the TLS handshake failed: " + plain(err).Error())
}

// isTimeout: net gave up by its own clock. With several addresses each gets a
// share of the time, so this need not be the end of the context.
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
