package mcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// task is one poll: a REQUEST whose answer becomes a record.
type task struct {
	link   *Link
	device string
	name   string
	method string

	id     uint64 // of the round's request
	answer mcp.Response
}

var _ scheduler.Task = (*task)(nil)

// Poll makes the task that asks device again and again; name is the stream of
// the records.
func (l *Link) Poll(device, name string, cfg PollConfig) scheduler.Task {
	t := &task{link: l, device: device, name: name, method: cfg.Method}
	if t.method == "" {
		t.method = name
	}
	return t
}

// Begin implements scheduler.Task.
func (t *task) Begin(time.Time) { t.id, t.answer = 0, mcp.Response{} }

// Step implements scheduler.Task.
func (t *task) Step(ctx context.Context) (bool, error) {
	s := t.link.current()
	if s == nil {
		return false, transport.ErrLost
	}
	// A device that remembers its answers gives the same one again. Else a
	// repetition is a new request: reading twice does no harm, and a late answer
	// to the first isn't taken for the second's.
	if t.id == 0 || !s.Peer().Deduplicates {
		t.id = s.NewRequestID()
	}
	answer, err := s.Request(ctx, mcp.Request{ID: t.id, Method: t.method, Device: t.device})
	var refusal *mcp.Error
	switch {
	case err == nil:
		t.answer = answer
	case answer.Code != mcp.CodeOK, ctx.Err() != nil: // the device said no, or nothing
	case errors.As(err, &refusal) && !refusal.Remote && refusal.Code == mcp.CodeTooLarge: // we can't even ask
	default:
		return false, transport.Lost(err) // the session has ended
	}
	return false, err
}

// End implements scheduler.Task.
func (t *task) End(ctx context.Context, err error) {
	r := t.record(err)
	r.Device, r.Stream = t.device, t.name
	r.Agent, r.Epoch, r.Seq, r.Part = "", 0, 0, 0
	if r.Time.IsZero() {
		r.Time, r.Clock = t.link.now()
	}
	if err := t.link.sink.Deliver(ctx, r); err != nil {
		t.link.log.Warn("a reading could not be stored", "device", t.device, "poll", t.name, "error", err)
	}
}

// record is what the round has brought.
func (t *task) record(err error) record.Record {
	if err != nil {
		return record.Record{Quality: record.Bad, Points: []record.Point{{Name: t.name, Bad: reasonOf(err)}}}
	}
	if t.answer.ContentType != mcp.ContentTypeRecord {
		r := record.Record{Payload: t.answer.Payload, ContentType: t.answer.ContentType}
		if len(r.Payload) == 0 && r.ContentType == "" {
			r.ContentType = "application/octet-stream" // so that the record says that nothing is what came (RFC 2046, section 4.5.1)
		}
		return r
	}
	var r record.Record
	if err := r.Unmarshal(t.named()); err != nil || r.Gap != nil || new(record.Checker).Check(&r) != nil {
		return record.Record{Quality: record.Bad, Payload: t.answer.Payload, ContentType: t.answer.ContentType}
	}
	return r
}

// named is the answer behind the names that the configuration gives it, so that
// it may leave them out.
func (t *task) named() []byte {
	names := record.Record{Device: t.device, Stream: t.name}
	return bytes.Join([][]byte{names.Append(nil), t.answer.Payload}, nil)
}

// reasonOf puts into a word why a round has brought nothing.
func reasonOf(err error) string {
	var refusal *mcp.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return record.BadTimeout
	case errors.As(err, &refusal):
		return fmt.Sprintf("mcp-%d", refusal.Code)
	}
	return record.BadLinkDown
}
