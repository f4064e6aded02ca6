package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// job is a command's task on the line. The lane calls it from one goroutine at a
// time.
type job struct {
	Task
	room  *Room
	entry *entry

	sent  time.Time // when a step first may have sent something
	acted bool      // a step was done: what follows belongs to it
}

// hand gives a command to its line.
func (r *Room) hand(e *entry) {
	r.mu.Lock()
	now := r.clock.Now()
	left := e.left(now)
	switch {
	case !r.running || e.now.State != Sending || e.handed:
		r.mu.Unlock()
		return
	case left == 0:
		r.expireMarked(e.device, now)
		r.mu.Unlock()
		return
	}
	e.handed = true
	task := e.task
	r.mu.Unlock()

	// Not under the lock: the line may be about to tell the end of another job.
	err := e.device.target.Line.Submit(scheduler.Job{
		Device: e.device.id, Task: &job{Task: task, room: r, entry: e},
		Deadline: time.Now().Add(left), Repeat: e.repeatable(),
	})
	if err != nil {
		r.notTaken(e, err)
	}
}

// notTaken is told by the line at once.
func (r *Room) notTaken(e *entry, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	d := e.device
	switch {
	case errors.Is(err, scheduler.ErrBusy):
		r.putBack(e, false, words(err))
		d.busy = min(max(2*d.busy, minBusy), maxBusy)
		r.delay(d, now, d.busy)
	case errors.Is(err, scheduler.ErrStopped):
		d.stopped = true
		r.putBack(e, false, words(err))
	default:
		r.finish(e, now, Failed, words(err), nil)
		r.advance(d, now)
	}
}

// Step keeps the deadline also where the lane's clock stands still: while the
// machine is suspended.
func (j *job) Step(ctx context.Context, t *scheduler.Turn) (more bool, err error) {
	if !j.acted && j.entry.left(j.room.clock.Now()) == 0 {
		return false, scheduler.ErrExpired
	}
	began := time.Now()
	more, err = j.Task.Step(ctx, t)
	if t.Sent && j.sent.IsZero() {
		j.sent = began
	}
	j.acted = j.acted || err == nil
	return more, err
}

// End tells the room.
func (j *job) End(err error) func(context.Context) {
	work := j.Task.End(err)
	j.room.endOf(j, err, answerOf(j.Answer()))
	return work
}

func (r *Room) endOf(j *job, err error, answer *Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := j.entry
	if !e.handed || e.now.State != Sending {
		r.log.Error("a line has told the end of a command twice", "command", e.now.ID, "device", e.now.Device)
		return
	}
	if !j.sent.IsZero() {
		e.change(func(c *Command) { c.Sent = j.sent.UTC().Round(0) })
	}
	e.device.busy = 0
	now := r.clock.Now()
	switch state, reason := j.outcome(err); state {
	case Queued:
		e.device.stopped = true
		r.putBack(e, !j.sent.IsZero(), reason)
		return
	case Expired:
		e.change(func(c *Command) { c.Attempts-- })
		r.tooLate(e, now, reason)
	default:
		r.finish(e, now, state, reason, answer)
	}
	r.advance(e.device, now)
}

// outcome is what the error of an End means. Queued: it waits for the next start.
func (j *job) outcome(err error) (State, string) {
	sent := !j.sent.IsZero()
	switch {
	case err == nil && j.entry.now.Broadcast:
		return Succeeded, "it was sent to all devices of the link; none of them confirms a broadcast"
	case err == nil:
		return Succeeded, ""
	case errors.Is(err, scheduler.ErrStopped) && (!sent || j.entry.repeatable()):
		return Queued, words(err)
	case errors.Is(err, scheduler.ErrExpired) && !sent:
		return Expired, words(err)
	case j.entry.now.Kind == Read: // it changes nothing, so that silence leaves nothing open
		return Failed, strings.TrimPrefix(words(err), scheduler.ErrUnknown.Error()+": ")
	case errors.Is(err, scheduler.ErrUnknown):
		return Unknown, words(err)
	case sent && scheduler.Unseen(err):
		return Unknown, words(fmt.Errorf("%w: %w", scheduler.ErrUnknown, err))
	}
	return Failed, words(err)
}

// answerOf keeps what a record says; nil if that is nothing.
func answerOf(r record.Record) *Answer {
	a := &Answer{Payload: bytes.Clone(r.Payload), ContentType: r.ContentType}
	for i := range r.Points {
		p := &r.Points[i]
		switch {
		case p.Bad != "":
			a.setBad(p.Name, p.Bad)
		case !p.Value.Finite():
			a.setBad(p.Name, record.BadNotFinite)
		case p.Value.Kind() != record.KindNone:
			if a.Values == nil {
				a.Values = make(map[string]Value)
			}
			a.Values[p.Name] = Value{p.Value}
		}
	}
	if a.Values == nil && a.Bad == nil && len(a.Payload) == 0 && a.ContentType == "" {
		return nil
	}
	return a
}

func (a *Answer) setBad(point, why string) {
	if a.Bad == nil {
		a.Bad = make(map[string]string)
	}
	a.Bad[point] = why
}
