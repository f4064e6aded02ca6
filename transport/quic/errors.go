package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// gone is why a connection ended, or did not come about. It is of class
// transport.ErrLost, and permanent where only people can mend it. It never is
// net.ErrClosed, to which quic-go's errors unwrap even when the peer closed.
type gone struct {
	reason  string
	settled bool
}

func (g gone) Error() string { return g.reason }

func (g gone) Is(target error) bool {
	return target == transport.ErrLost || g.settled && target == transport.ErrPermanent
}

const noAnswer = "no answer: check the address, that the peer runs, and that no firewall keeps UDP away"

// translate turns what quic-go answers into a class of transport's, or io.EOF.
func translate(err error) error {
	var (
		idle      *quicgo.IdleTimeoutError
		handshake *quicgo.HandshakeTimeoutError
		reset     *quicgo.StatelessResetError
		version   *quicgo.VersionNegotiationError
		said      *quicgo.ApplicationError
		stream    *quicgo.StreamError
		protocol  *quicgo.TransportError
	)
	switch {
	case err == nil, errors.Is(err, transport.ErrLost): // or translated already
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.As(err, &idle):
		return gone{reason: "nothing was heard from the other side for a minute"}
	case errors.As(err, &handshake):
		return gone{reason: noAnswer}
	case errors.As(err, &reset):
		return gone{reason: "the other side knows nothing of this connection any more: it has restarted"}
	case errors.As(err, &version):
		return gone{"the other side does not speak QUIC version 1", true}
	case errors.As(err, &said) && !said.Remote:
		return gone{reason: "the connection that it belongs to was closed"}
	case errors.As(err, &said) && said.ErrorMessage == "":
		return gone{reason: "the other side closed the connection"}
	case errors.As(err, &said):
		return gone{reason: "the other side closed the connection: " + said.ErrorMessage}
	case errors.As(err, &stream):
		return gone{reason: "the other side gave up this stream"}
	case errors.As(err, &protocol):
		return translateProtocol(protocol)
	}
	return gone{reason: netfault.Plain(err).Error()}
}

func translateProtocol(err *quicgo.TransportError) error {
	switch {
	case err.ErrorCode == quicgo.ConnectionRefused:
		return gone{reason: "the other side refused the connection: it is busy, or stops"}
	case !err.ErrorCode.IsCryptoError():
		return gone{reason: err.Error()}
	}
	// An alert of TLS is told as this code (RFC 9001, section 4.8).
	var cause error = &net.OpError{Op: "remote error", Err: tls.AlertError(err.ErrorCode - 0x100)}
	if !err.Remote {
		cause = ours(err)
	}
	if reason, settled, ok := secure.Explain(cause); ok {
		return transport.Handshake(gone{reason, settled})
	}
	return transport.Handshake(gone{reason: err.Error()})
}

// ours is what crypto/tls has found to be wrong. quic-go has it beside
// net.ErrClosed.
func ours(err *quicgo.TransportError) error {
	for _, cause := range err.Unwrap() {
		if cause != nil && !errors.Is(cause, net.ErrClosed) {
			return cause
		}
	}
	return err
}

// dialError translates what dialing brought.
func dialError(ctx context.Context, err error) error {
	var address *net.AddrError
	switch {
	case ctx.Err() != nil:
		return netfault.InTime(ctx.Err(), noAnswer)
	case errors.Is(err, transport.ErrPermanent):
		return err
	case errors.As(err, &address), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return transport.Permanent(netfault.Plain(err))
	}
	return translate(err)
}
