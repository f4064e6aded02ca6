package mcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// way is how a request gets to a device at this moment.
type way struct {
	session  *mcp.Session  // nil: there is none
	byteTime time.Duration // on a serial line; else 0
	largest  int           // bytes of the largest answer that we take
}

// frameBytes is what a frame is longer than its payload's text and bytes:
// header, checksum, and the tags of its fields, rounded up.
const frameBytes = 48

// wire is how long n bytes of content take on the line.
func (w way) wire(n int) time.Duration { return time.Duration(n+frameBytes) * w.byteTime }

// ask makes one try at a request and fills in t. Its error is
//
//   - of class context.DeadlineExceeded if the device was silent,
//   - ctx's if that has ended,
//   - an *mcp.Error if the device says no, or if we can't even ask,
//   - and else of class transport.ErrLost: the session has ended.
func (w way) ask(ctx context.Context, r mcp.Request, t *scheduler.Turn) (mcp.Response, error) {
	if w.session == nil {
		return mcp.Response{}, transport.ErrLost
	}
	if err := ctx.Err(); err != nil {
		return mcp.Response{}, err
	}
	leaves := w.wire(len(r.Method) + len(r.Device) + len(r.Payload) + len(r.ContentType))
	if !t.Deadline.IsZero() {
		r.TimeLeft = max(time.Until(t.Deadline)-leaves, 1) // at the device; 0 would say nothing
	}
	waiting, cancel := context.WithTimeout(ctx, leaves+t.Timeout+w.wire(w.largest))
	defer cancel()
	t.Sent = true
	start := time.Now()
	answer, err := w.session.Request(waiting, r)
	took := time.Since(start) - leaves - w.wire(len(answer.Payload)+len(answer.ContentType)+len(answer.Reason))
	var refusal *mcp.Error
	switch {
	case err == nil, answer.Code != mcp.CodeOK: // an answer, if only a no
		t.Took = max(took, 1)
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, mcp.ErrNotSent):
		t.Sent = false
		if !errors.As(err, &refusal) || refusal.Remote || refusal.Code != mcp.CodeTooLarge && refusal.Code != mcp.CodeBusy {
			err = transport.Lost(err)
		}
	default:
		err = transport.Lost(err)
	}
	return answer, err
}

// A peer that is busy is asked again a little later, busyTries times: after
// between half of busyWait and all of it, then double that, and so on, 3.1 s in
// all at most. The jitter keeps those apart who were turned away together.
const (
	busyTries = 5
	busyWait  = 100 * time.Millisecond
)

// rebuffs counts how often a peer was busy in one round.
type rebuffs int

// later says when to ask again; nil: it was asked often enough.
func (b *rebuffs) later() *scheduler.NotYet {
	if *b >= busyTries {
		return nil
	}
	bound := busyWait << *b
	*b++
	return &scheduler.NotYet{Until: time.Now().Add(bound/2 + rand.N(bound/2))}
}

// content is the record in an answer of the device, as a reading in stream.
func content(device, stream string, a *mcp.Response) record.Record {
	r := record.Record{Payload: a.Payload, ContentType: a.ContentType}
	switch {
	case a.ContentType == mcp.ContentTypeRecord:
		r = points(device, stream, a)
	case len(r.Payload) == 0 && r.ContentType == "":
		r.ContentType = "application/octet-stream" // so that the record says that nothing is what came (RFC 2046, section 4.5.1)
	}
	r.Device, r.Stream = device, stream
	r.Agent, r.Epoch, r.Seq, r.Part = "", 0, 0, 0
	return r
}

// points reads an answer that is a record. One that is not what it says is kept
// as it came.
func points(device, stream string, a *mcp.Response) (r record.Record) {
	// The names that the configuration gives it stand in front, so that the
	// device may leave them out.
	names := record.Record{Device: device, Stream: stream}
	raw := bytes.Join([][]byte{names.Append(nil), a.Payload}, nil)
	if err := r.Unmarshal(raw); err != nil || r.Gap != nil || new(record.Checker).Check(&r) != nil {
		return record.Record{Quality: record.Bad, Payload: a.Payload, ContentType: a.ContentType}
	}
	return r
}

// refused puts a device's no into words for whoever asked.
func refused(device, method string, err error) error {
	var e *mcp.Error
	if !errors.As(err, &e) {
		return err
	}
	said := *e
	said.Remote = false // the sentence says who it was
	if e.Remote {
		return fmt.Errorf("device %s refuses %s: %w", device, method, &said)
	}
	return fmt.Errorf("device %s can't be asked for %s: %w", device, method, &said)
}
