package transport

import (
	"errors"
	"fmt"
)

// The errors of a Conn, a Dialer or a Listener, and what the caller does:
//
//	net.ErrClosed                we closed it              leave quietly
//	ErrLost                      peer or line gone         close, dial again with jitter
//	os.ErrDeadlineExceeded       no whole message yet      read again, or resynchronise
//	any error of Write           delivery unknown          close; repeat only what may be repeated
//	ErrFrame, ErrTooLarge        a bad message             count, resynchronise; the Conn lives
//	Permanent(err)               configuration, permission mark failed, retry slowly, say so
//
// Every implementation translates its library's errors into these; test with
// errors.Is. No peer can bring about net.ErrClosed.
var (
	// ErrLost: the peer closed, the line was unplugged, the network is gone.
	ErrLost = errors.New("connection lost")
	// ErrFrame: bytes that are no message.
	ErrFrame = errors.New("bad frame")
	// ErrTooLarge: a message beyond the limit, coming or going.
	ErrTooLarge = errors.New("message too large")
	// ErrPermanent marks an error that trying again soon can't mend.
	ErrPermanent = errors.New("permanent")
	// ErrHandshake marks, beside its class, the end of a connection on which TLS
	// or DTLS came to no agreement.
	ErrHandshake = errors.New("handshake failed")
)

// Permanent marks err as one that trying again soon can't mend: a device file
// without permission, a port in use. errors.Is finds both err and ErrPermanent.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return marked{err, ErrPermanent}
}

// Handshake marks err, which reads as before, as what a handshake failed of:
// errors.Is finds both err and ErrHandshake.
func Handshake(err error) error {
	if err == nil {
		return nil
	}
	return marked{err, ErrHandshake}
}

type marked struct {
	error
	mark error
}

func (m marked) Unwrap() []error { return []error{m.error, m.mark} }

// Lost wraps the cause of a lost connection. errors.Is finds ErrLost, and
// never the cause: a library's error may unwrap to net.ErrClosed although the
// peer closed.
func Lost(cause error) error {
	if cause == nil {
		return ErrLost
	}
	return fmt.Errorf("%w: %s", ErrLost, cause.Error())
}
