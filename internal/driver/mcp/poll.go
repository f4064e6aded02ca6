package mcp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// poll is a REQUEST whose answer becomes a record, again and again.
type poll struct {
	link   *Link
	device string
	name   string
	method string

	id      uint64 // of the round's request
	rebuffs rebuffs
	answer  mcp.Response
}

var _ scheduler.Task = (*poll)(nil)

// Poll makes the task that asks device again and again; name is the stream of
// the records. Read then knows it too.
func (l *Link) Poll(device, name string, cfg PollConfig) scheduler.Task {
	p := &poll{link: l, device: device, name: name, method: cfg.Method}
	if p.method == "" {
		p.method = name
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.polls = append(l.polls, p)
	return p
}

// Begin implements scheduler.Task.
func (p *poll) Begin(time.Time) { p.id, p.rebuffs, p.answer = 0, 0, mcp.Response{} }

// Step implements scheduler.Task.
func (p *poll) Step(ctx context.Context, t *scheduler.Turn) (bool, error) {
	w := p.link.way()
	// A device that remembers its answers gives the same one again. Else a
	// repetition is a new request: reading twice does no harm, and a late answer
	// to the first isn't taken for the second's.
	if w.session != nil && (p.id == 0 || !w.session.Peer().Deduplicates) {
		p.id = w.session.NewRequestID()
	}
	answer, err := w.ask(ctx, mcp.Request{ID: p.id, Method: p.method, Device: p.device}, t)
	if mcp.IsCode(err, mcp.CodeBusy) {
		p.id = 0 // it may remember that answer as well
		if notYet := p.rebuffs.later(); notYet != nil {
			return false, notYet
		}
	}
	if err == nil {
		p.answer = answer
	}
	return false, err
}

// heavy is from how many bytes on an answer is not decoded on the lane.
const heavy = 16 << 10

// End implements scheduler.Task.
func (p *poll) End(err error) func(context.Context) {
	answer := p.answer // the next round may begin before the work is done
	p.answer = mcp.Response{}
	now := p.link.now()
	read := func() record.Record {
		var r record.Record
		if err == nil {
			r = content(p.device, p.name, &answer)
		} else {
			r = record.Record{Device: p.device, Stream: p.name, Quality: record.Bad, Points: []record.Point{{Name: p.name, Bad: reasonOf(err)}}}
		}
		if r.Time.IsZero() {
			r.At(now)
		}
		return r
	}
	if len(answer.Payload) > heavy {
		return func(ctx context.Context) { p.deliver(ctx, read()) }
	}
	r := read()
	if p.link.sinkOf(p.device).Offer(r) {
		return nil
	}
	return func(ctx context.Context) { p.deliver(ctx, r) }
}

func (p *poll) deliver(ctx context.Context, r record.Record) {
	if err := p.link.sinkOf(p.device).Deliver(ctx, r); err != nil {
		p.link.log.Warn("a reading could not be stored", "device", p.device, "poll", p.name, "error", err)
	}
}

// reasonOf puts into a word why a round has brought nothing.
func reasonOf(err error) string {
	var refusal *mcp.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, scheduler.ErrSilent):
		return record.BadTimeout
	case errors.As(err, &refusal):
		return fmt.Sprintf("mcp-%d", refusal.Code)
	}
	return record.BadLinkDown
}
