package mcp

import (
	"fmt"
	"math"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// ContentTypeRecord says that a payload is a record as record.proto has it.
const ContentTypeRecord = "application/x-edge-record"

// MethodTokenExpires is what a server asks of a client whose token will not be
// good for long: the payload says for how many whole seconds, as text. The
// client's Session answers by itself. When the time is over the server ends the
// session with CodeTokenExpired.
const MethodTokenExpires = "token-expires"

// Request asks the peer for something by name.
type Request struct {
	ID          uint64 // not 0; Session.Request gives one where it is
	Method      string // see record.CheckName
	Device      string // which device behind the peer; empty: the peer itself
	Payload     []byte
	ContentType string // of Payload, an Internet media type (RFC 6838)
	// TimeLeft is for how long, from now on, it is worth anything to whoever asks;
	// in whole milliseconds, rounded up; 0 or less: nothing is said. Once it is over
	// the peer does not begin with it.
	TimeLeft time.Duration
}

// Response answers the Request of the same ID.
type Response struct {
	ID          uint64
	Code        Code   // CodeOK: done
	Reason      string // for people, where Code is not CodeOK
	Payload     []byte
	ContentType string
}

const (
	callID          = 1
	requestMethod   = 2
	requestDevice   = 3
	responseCode    = 2
	responseReason  = 3
	callPayload     = 4
	callContentType = 5
	requestTimeLeft = 6

	reasonCode = 1
	reasonText = 2
)

// Append appends the payload of a REQUEST to b.
func (r *Request) Append(b []byte) []byte {
	b = appendVarint(b, callID, r.ID)
	b = appendText(b, requestMethod, r.Method)
	b = appendText(b, requestDevice, r.Device)
	b = appendBytes(b, callPayload, r.Payload)
	b = appendText(b, callContentType, r.ContentType)
	if r.TimeLeft <= 0 {
		return b
	}
	return appendVarint(b, requestTimeLeft, uint64((r.TimeLeft-1)/time.Millisecond)+1)
}

// maxTimeLeft is the longest that a Request holds, in milliseconds: 292 years.
const maxTimeLeft = uint64(math.MaxInt64 / time.Millisecond)

// Unmarshal sets r from the payload of a REQUEST; r.Payload aliases b. Errors
// are of class ErrPayload.
func (r *Request) Unmarshal(b []byte) error {
	*r = Request{}
	err := eachField(b, func(f field) (err error) {
		switch {
		case f.isVarint(callID):
			r.ID = f.number
		case f.isBytes(requestMethod):
			r.Method, err = f.text("the method's name", record.MaxName)
		case f.isBytes(requestDevice):
			r.Device, err = f.text("the device's name", record.MaxName)
		case f.isBytes(callPayload):
			r.Payload = f.bytes
		case f.isBytes(callContentType):
			r.ContentType, err = f.text("the content type", maxText)
		case f.isVarint(requestTimeLeft):
			r.TimeLeft = time.Duration(min(f.number, maxTimeLeft)) * time.Millisecond
		}
		return err
	})
	if err != nil {
		return err
	}
	if r.ID == 0 {
		return fmt.Errorf("%w: the request's id is 0", ErrPayload)
	}
	if r.Device != "" {
		if err := checkName("the device's name", r.Device); err != nil {
			return err
		}
	}
	return checkName("the method's name", r.Method)
}

// Append appends the payload of a RESPONSE to b.
func (r *Response) Append(b []byte) []byte {
	b = appendVarint(b, callID, r.ID)
	b = appendVarint(b, responseCode, uint64(r.Code))
	b = appendText(b, responseReason, r.Reason)
	b = appendBytes(b, callPayload, r.Payload)
	return appendText(b, callContentType, r.ContentType)
}

// Unmarshal sets r from the payload of a RESPONSE; r.Payload aliases b. Errors
// are of class ErrPayload.
func (r *Response) Unmarshal(b []byte) error {
	*r = Response{}
	err := eachField(b, func(f field) (err error) {
		switch {
		case f.isVarint(callID):
			r.ID = f.number
		case f.isVarint(responseCode):
			r.Code = Code(f.uint32())
		case f.isBytes(responseReason):
			r.Reason, err = f.text("the reason", maxText)
		case f.isBytes(callPayload):
			r.Payload = f.bytes
		case f.isBytes(callContentType):
			r.ContentType, err = f.text("the content type", maxText)
		}
		return err
	})
	if err == nil && r.ID == 0 {
		return fmt.Errorf("%w: the response's id is 0", ErrPayload)
	}
	return err
}
