package tcp

import (
	"context"
	"errors"
	"syscall"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
)

const (
	noAnswer = "no answer: check the address, and that no firewall is in the way"
	noTLS    = "the other side is there and says nothing in the TLS handshake: check the port, and whether it speaks TLS"
)

// dialError translates what net's Dialer answers.
func dialError(ctx context.Context, err error) error {
	if ended := netfault.Ended(ctx, err, noAnswer); ended != nil {
		return ended
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return netfault.Unreached("connection refused: nothing listens there; check host and port, and that the peer runs")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return netfault.NoWay(err)
	case netfault.IsTimeout(err), errors.Is(err, syscall.ETIMEDOUT):
		return netfault.Unreached(noAnswer)
	}
	return netfault.Dial(err)
}

// tlsDialError says of a handshake that failed what dialError says of a
// connection: nothing was lost, it did not come about.
func tlsDialError(err error) error {
	var end refused
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return netfault.InTime(err, noTLS)
	case errors.As(err, &end) && end.settled:
		return transport.Permanent(errors.New(end.reason))
	case errors.As(err, &end):
		return netfault.Unreached(end.reason)
	}
	return netfault.Unreached("the TLS handshake failed: " + netfault.Plain(err).Error())
}
