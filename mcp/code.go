package mcp

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mcp-edge/edge-agent/transport"
)

// Code says why, in ERROR, CLOSE and RESPONSE. The numbers are frozen; a
// receiver treats one that it does not know as CodeInternal.
type Code uint32

// The codes.
const (
	CodeOK              Code = 0  // nothing is wrong
	CodeBadFrame        Code = 1  // wrong magic, length or checksum on a link that does not damage bytes
	CodeUnknownVersion  Code = 2  // of the frame
	CodeUnknownCommand  Code = 3  // in a frame that is otherwise good
	CodeBadPayload      Code = 4  // malformed, a name that is not allowed, a bound broken
	CodeNotAllowed      Code = 5  // this peer may not do that, or not speak for that device
	CodeTooLarge        Code = 6  // more than the receiver's max_payload, or an answer beyond the asker's
	CodeBusy            Code = 7  // no more connections or requests now, later perhaps; or a Request's TimeLeft was over
	CodeWindowExceeded  Code = 8  // more sent than the window allows
	CodeHelloExpected   Code = 9  // a frame before HELLO
	CodeHelloTimeout    Code = 10 // no HELLO or WELCOME in time
	CodeHeartbeatMissed Code = 11 // three intervals of silence
	CodeUnexpected      Code = 12 // a command that does not belong here, such as a second HELLO on TCP
	CodeGoingAway       Code = 13 // the sender stops or restarts
	CodeReplaced        Code = 14 // the same sender has connected anew
	CodeUnknownMethod   Code = 15 // of a REQUEST
	CodeInternal        Code = 16 // the sender's own fault
	CodeEpochSpent      Code = 17 // the receiver knows numbers of this epoch that the sender never gave: take a new epoch
	CodeUnauthorized    Code = 18 // who the peer is was not proven: no token or certificate, or not a good one
	CodeTokenExpired    Code = 19 // the token's time is over: connect again with a fresh one
	CodeRateExceeded    Code = 20 // more records in a time than is allowed
)

func (c Code) String() string {
	names := [...]string{
		"ok", "bad frame", "unknown version", "unknown command", "bad payload", "not allowed", "too large", "busy",
		"window exceeded", "hello expected", "hello time-out", "heartbeat missed", "unexpected command", "going away",
		"replaced", "unknown method", "internal error", "epoch spent",
		"unauthorized", "token expired", "rate exceeded",
	}
	if int64(c) < int64(len(names)) {
		return names[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// Error is the end of a session, or of a request, for a reason that one of the
// peers gave.
type Error struct {
	Code   Code
	Reason string // for people
	Remote bool   // the peer said it, in ERROR, CLOSE or RESPONSE
}

func (e *Error) Error() string {
	s := e.Code.String()
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Remote {
		return "the peer says " + s
	}
	return s
}

func refuse(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// asError says what to tell the peer about err. What a peer has no business to
// know becomes CodeInternal without words.
func asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, ErrVersion):
		return refuse(CodeUnknownVersion, "versions 1 and 2 are spoken here")
	case errors.Is(err, transport.ErrTooLarge):
		return &Error{Code: CodeTooLarge, Reason: plain(err, transport.ErrTooLarge)}
	case errors.Is(err, transport.ErrFrame):
		return &Error{Code: CodeBadFrame, Reason: plain(err, transport.ErrFrame)}
	case errors.Is(err, ErrPayload):
		return &Error{Code: CodeBadPayload, Reason: plain(err, ErrPayload)}
	}
	return &Error{Code: CodeInternal}
}

// plain is what an error says beyond its class, without what we have put in
// front of it on the way here: our own address and operation help us only.
func plain(err, class error) string {
	for inner := errors.Unwrap(err); inner != nil && inner.Error() != class.Error(); inner = errors.Unwrap(err) {
		err = inner
	}
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), class.Error()), ": ")
}

// appendReason appends the payload of a CLOSE or an ERROR.
func (e *Error) appendReason(b []byte) []byte {
	b = appendVarint(b, reasonCode, uint64(e.Code))
	return appendText(b, reasonText, strings.ToValidUTF8(e.Reason[:min(len(e.Reason), 256)], ""))
}

// AppendError appends a whole ERROR frame, for those who refuse a peer before
// there is a Session.
func AppendError(dst []byte, version uint8, e *Error) ([]byte, error) {
	return AppendFrame(dst, version, CommandError, e.appendReason(nil))
}

// parseReason never fails: a peer that ends the session ends it, however badly
// it puts it.
func parseReason(b []byte) *Error {
	e := &Error{Remote: true}
	if err := eachField(b, func(f field) (err error) {
		switch {
		case f.isVarint(reasonCode):
			e.Code = Code(f.uint32())
		case f.isBytes(reasonText):
			e.Reason, err = f.text("the reason", maxText)
		}
		return err
	}); err != nil {
		e.Reason = "(unreadable reason)"
	}
	return e
}
