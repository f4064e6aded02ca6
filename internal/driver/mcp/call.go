package mcp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// Call is one request to a device, made once: a command. It is good for one
// round.
//
// Where the device promises to do a repeated request only once, and is silent,
// it is asked up to mcp.RequestRetries times more with the same id, on the same
// session: that is safe whatever the request does. Each repetition is a Step of
// its own, so that it waits for its turn and none comes after the job's deadline.
// Each tells the device how much of that is left.
// Without that promise, and once the session is lost, nobody can tell whether the
// request was carried out, and only a Job that may be repeated is asked again.
type Call struct {
	device  string // of the configuration
	stream  string // of the answer
	way     func() way
	request mcp.Request // ID: of the last try; 0: none was made, or it was surely not carried out

	session *mcp.Session // on which that id was asked
	asked   time.Time    // when, for the first time
	tries   int          // with that id
	unseen  bool         // the device was silent at one of them, or before: it may have carried it out
	again   bool         // the step before has asked for another try with that id
	rebuffs rebuffs
	answer  record.Record
}

var _ scheduler.Task = (*Call)(nil)

// repeatTime is how long after the first try a request is repeated with its id:
// well within the 30 s for which an answer is kept, see mcp.Answers.
const repeatTime = 25 * time.Second

// maxContentType is as long as a content type may be in MCP.
const maxContentType = 1 << 10

// Call makes the task that asks device for method once. An error says in words
// what is wrong with the request.
func (l *Link) Call(device, method string, payload []byte, contentType string) (*Call, error) {
	return newCall(device, l.way, mcp.Request{Device: device, Method: method, Payload: payload, ContentType: contentType}, l.cfg.MaxPayload)
}

// Read makes the task that asks for what a poll of the device asks for, once.
// Its answer is not stored. With an empty name it is the device's only poll. An
// error says in words which polls there are.
func (l *Link) Read(device, name string) (*Call, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found *poll
	var names []string
	for _, p := range l.polls {
		if p.device != device {
			continue
		}
		names = append(names, p.name)
		if name == "" || name == p.name {
			found = p
		}
	}
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("device %s has no poll that could be read now", device)
	case found == nil:
		return nil, fmt.Errorf("device %s has no poll %q; there are %s", device, name, strings.Join(names, ", "))
	case name == "" && len(names) > 1:
		return nil, fmt.Errorf("device %s has several polls, say which one to read: %s", device, strings.Join(names, ", "))
	}
	return &Call{device: device, stream: found.name, way: l.way, request: mcp.Request{Device: device, Method: found.method}}, nil
}

// newCall checks a request; maxPayload of a frame, 0: the default.
func newCall(device string, w func() way, r mcp.Request, maxPayload int) (*Call, error) {
	if maxPayload <= 0 {
		maxPayload = mcp.DefaultPayload
	}
	if err := record.CheckName(r.Method); err != nil {
		return nil, fmt.Errorf("the method's name %w", err)
	}
	if len(r.ContentType) > maxContentType || !utf8.ValidString(r.ContentType) {
		return nil, fmt.Errorf("the content type must be UTF-8 of at most %d bytes", maxContentType)
	}
	longest := r
	longest.ID, longest.TimeLeft = math.MaxUint64, math.MaxInt64
	if size := len(longest.Append(nil)); size > maxPayload {
		return nil, fmt.Errorf("the request has %d bytes, and a frame to this device carries %d", size, maxPayload)
	}
	return &Call{device: device, stream: r.Method, way: w, request: r}, nil
}

// Begin implements scheduler.Task.
func (c *Call) Begin(time.Time) {
	c.request.ID, c.session, c.tries, c.unseen, c.again, c.rebuffs, c.answer = 0, nil, 0, false, false, 0, record.Record{}
}

// Step implements scheduler.Task.
func (c *Call) Step(ctx context.Context, t *scheduler.Turn) (bool, error) {
	w := c.way()
	again, same := c.again, w.session != nil && c.repeatable(w.session)
	c.again = false
	switch {
	case !t.Deadline.IsZero() && !time.Now().Before(t.Deadline):
		return false, scheduler.ErrExpired
	case again && !same: // whether it may be done anew is for the job to say
		return false, fmt.Errorf("device %s has not answered %s, and has gone since: %w", c.device, c.request.Method, context.DeadlineExceeded)
	case w.session != nil && !same:
		c.request.ID, c.session, c.asked, c.tries = w.session.NewRequestID(), w.session, time.Now(), 0
	}
	c.tries++
	answer, err := w.ask(ctx, c.request, t)
	switch {
	case err == nil:
		// Here, not in Answer: a large one takes its time, for which the lane would wait.
		c.answer = content(c.device, c.stream, &answer)
		return false, nil
	case mcp.IsCode(err, mcp.CodeBusy):
		return false, c.turnedAway(t, err)
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		c.unseen = true
		if c.tries <= mcp.RequestRetries && c.repeatable(w.session) {
			c.again = true
			return false, &scheduler.NotYet{Until: time.Now()}
		}
		return false, fmt.Errorf("device %s has not answered %s: %w", c.device, c.request.Method, err)
	}
	return false, refused(c.device, c.request.Method, err)
}

// repeatable says whether the last request may be asked again on s, whatever it
// does.
func (c *Call) repeatable(s *mcp.Session) bool {
	return c.request.ID != 0 && s == c.session && time.Since(c.asked) < repeatTime && s.Peer().Deduplicates
}

// turnedAway is the error of a step that met a busy device: it has not done what
// it was asked for. But an earlier try, of which nothing was seen, may run, and
// be the one that keeps it busy.
func (c *Call) turnedAway(t *scheduler.Turn, err error) error {
	first := c.tries == 1
	if first {
		t.Sent = false
		c.request.ID = 0 // it may remember that answer
	}
	if notYet := c.rebuffs.later(); notYet != nil {
		c.again = !first
		return notYet
	}
	err = refused(c.device, c.request.Method, err)
	if !c.unseen {
		return err
	}
	c.rebuffs = 0
	return fmt.Errorf("%w, and later: %w", context.DeadlineExceeded, err)
}

// End implements scheduler.Task.
func (c *Call) End(error) func(context.Context) { return nil }

// Answer is what the device said: points, where that is a record, else a payload
// and its content type. It is the zero Record unless the call has succeeded, and
// valid after End.
func (c *Call) Answer() record.Record { return c.answer }
