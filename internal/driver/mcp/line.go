package mcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// Line is the way back to a device that connects to a Server: it takes jobs as
// a scheduler.Lane does. A job steps on the session whose peer bears the device's
// name, and waits for one until its deadline. Jobs don't wait for each other. A
// Line costs nothing while it has none. It may be used concurrently.
type Line struct {
	server *Server
	device string
}

// Line returns the way to a device, known or not.
func (s *Server) Line(device string) *Line { return &Line{server: s, device: device} }

// Call makes the task that asks the device for method once. An error says in
// words what is wrong with the request.
func (l *Line) Call(method string, payload []byte, contentType string) (*Call, error) {
	w := func() way { return way{session: l.server.peers.session(l.device)} }
	return newCall(l.device, w, mcp.Request{Method: method, Payload: payload, ContentType: contentType}, l.server.cfg.MaxPayload)
}

// Ready tells whether the device is connected, and if not, that it is not.
func (l *Line) Ready() (ready bool, why string) {
	if l.server.peers.session(l.device) == nil {
		return false, l.device + " is not connected"
	}
	return true, ""
}

// Submit takes a job and returns at once. It may be called before Run. It fails
// with scheduler.ErrBusy when the device has too many jobs, and with
// scheduler.ErrStopped after Run; then the task is not told.
//
// A job that waits when Run ends ends with scheduler.ErrStopped, and so does one
// that may be repeated and was not answered.
func (l *Line) Submit(j scheduler.Job) error {
	now := time.Now()
	return l.server.desk.begin(l.device, func(ctx context.Context) {
		j.Task.Begin(now)
		if work := j.Task.End(l.do(ctx, j)); work != nil {
			work(ctx)
		}
	})
}

// do brings a job to its end.
func (l *Line) do(ctx context.Context, j scheduler.Job) error {
	inTime, cancel := context.WithDeadline(ctx, j.Deadline)
	defer cancel()
	var (
		sent     bool
		deadline = j.Deadline // until a step is answered
		lost     *mcp.Session
		cause    error // why it is not done yet
	)
	for {
		s := l.server.await(inTime, l.device, lost)
		if s == nil {
			if cause == nil && l.server.peers.session(l.device) == nil {
				cause = fmt.Errorf("device %s is not connected", l.device)
			}
			return giveUp(ctx, sent, j.Repeat, cause)
		}
		turn := scheduler.Turn{Timeout: mcp.RequestTimeout, Deadline: deadline}
		more, err := j.Task.Step(ctx, &turn)
		sent = sent || turn.Sent
		var notYet *scheduler.NotYet
		switch {
		case err == nil && !more:
			return nil
		case err == nil:
			deadline = time.Time{}
			continue
		case errors.Is(err, scheduler.ErrExpired):
			return giveUp(ctx, sent, j.Repeat, cmp.Or(cause, err))
		case errors.As(err, &notYet):
			cause = fmt.Errorf("device %s was busy or has not answered", l.device)
			pause(inTime, time.Until(notYet.Until))
			continue
		case !scheduler.Unseen(err):
			return err
		case sent && !j.Repeat:
			return fmt.Errorf("%w: %w", scheduler.ErrUnknown, err)
		case isLost(err):
			lost = s
		default:
			pause(inTime, busyWait) // whatever the task does, it is not asked without end
		}
		cause = err
	}
}

// giveUp is the end of a job that gets no further turn.
func giveUp(ctx context.Context, sent, repeat bool, cause error) error {
	switch {
	case ctx.Err() != nil && (repeat || !sent):
		return scheduler.ErrStopped
	case sent:
		return fmt.Errorf("%w: %w", scheduler.ErrUnknown, cause)
	case cause == nil, errors.Is(cause, scheduler.ErrExpired):
		return scheduler.ErrExpired
	}
	return fmt.Errorf("%w: %w", scheduler.ErrExpired, cause)
}

func isLost(err error) bool {
	return errors.Is(err, transport.ErrLost) || errors.Is(err, net.ErrClosed)
}

// await returns the open session of a device, another one than lost, which may
// look open until it has said goodbye; nil when ctx has ended.
func (s *Server) await(ctx context.Context, device string, lost *mcp.Session) *mcp.Session {
	for ctx.Err() == nil {
		entered := s.desk.entrance(device)
		session := s.peers.session(device)
		if session != nil && session != lost && isThere(ctx, session, entered) {
			return session
		}
		select {
		case <-entered:
		case <-ctx.Done():
		}
	}
	return nil
}

// isThere waits until the session is open, and its peer known to be no replay of
// what it once said: nobody would get the command. It gives up when the device
// has come anew, or ctx has ended.
func isThere(ctx context.Context, s *mcp.Session, entered <-chan struct{}) bool {
	wait := func(event <-chan struct{}) bool {
		select {
		case <-event:
			return true
		case <-entered:
		case <-ctx.Done():
		}
		return false
	}
	if !wait(s.Opened()) {
		return false
	}
	if confirmed := s.Peer().Confirmed; confirmed != nil && !wait(confirmed) {
		return false
	}
	state, _ := s.State()
	return state == mcp.Open
}
