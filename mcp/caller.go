package mcp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// How long Call waits for an answer, and how often it asks again.
const (
	RequestTimeout = 5 * time.Second
	RequestRetries = 3
)

// randomID is where the ids of a session's requests begin. They must not come
// again within the epoch, which may see any number of sessions.
func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])                      // never fails since Go 1.24
	return binary.BigEndian.Uint64(b[:])>>1 | 1 // room to count up, and not 0
}

// NewRequestID returns an id for a Request that may be repeated.
func (s *Session) NewRequestID() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	return s.lastID
}

// call is a request that waits for its answer.
type call struct {
	outcome chan outcome  // of capacity 1
	written uint64        // by us, once it is sent: when it is answered, the peer has read so much
	due     time.Duration // since the session's start: then it gives up; 0: it does not
}

type outcome struct {
	response Response
	err      error
}

// surelyTaken is how many bytes a Write hands over at once, even to a peer that
// reads nothing: the kernel's buffers alone hold more.
const surelyTaken = 16 << 10

// ErrNotSent is in the chain of a Request's error where nothing has left: the
// session is not open, the request is too large for the peer, or it does not read.
var ErrNotSent = errors.New("not sent")

// Request asks once and waits until ctx ends. The caller may ask again with the
// same ID only if Peer says that it Deduplicates, or if doing it twice does no
// harm. It fails with an *Error if the peer said no (the Response then has its
// Code), with the session's end if that comes first, with ErrNotSent and the
// cause if the peer can't have got the request.
func (s *Session) Request(ctx context.Context, r Request) (Response, error) {
	return s.request(ctx, &r, 0)
}

// request gives up after the timeout as well, if there is one.
func (s *Session) request(ctx context.Context, r *Request, timeout time.Duration) (Response, error) {
	result, err := s.ask(r, timeout)
	if err != nil {
		return Response{}, fmt.Errorf("mcp: request %s: %w: %w", r.Method, ErrNotSent, err)
	}
	var o outcome
	select {
	case o = <-result:
	case <-ctx.Done():
		o.err = ctx.Err()
	}
	s.forget(r.ID, result)
	if o.err == nil && o.response.Code != CodeOK {
		o.err = &Error{Code: o.response.Code, Reason: o.response.Reason, Remote: true}
	}
	if o.err != nil {
		o.err = fmt.Errorf("mcp: request %s: %w", r.Method, o.err)
	}
	return o.response, o.err
}

// ask sends r, and returns where its outcome comes.
func (s *Session) ask(r *Request, timeout time.Duration) (chan outcome, error) {
	s.mu.Lock()
	if s.state != Open || s.end != nil {
		s.mu.Unlock()
		return nil, s.notOpen()
	}
	if r.ID == 0 {
		s.lastID++
		r.ID = s.lastID
	}
	start := s.begin(CommandRequest)
	s.control = r.Append(s.control)
	if err := s.finishFrame(start); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	c := call{outcome: s.spare, written: s.written + uint64(len(s.control))}
	if s.spare = nil; c.outcome == nil {
		c.outcome = make(chan outcome, 1)
	}
	if timeout > 0 {
		c.due = s.now() + timeout
		if s.callsDue == 0 || c.due < s.callsDue {
			s.callsDue = c.due
			s.resetTimer(timeout)
		}
	}
	if s.calls == nil {
		s.calls = make(map[uint64]call)
	}
	s.calls[r.ID] = c
	crowd := len(s.calls) > 1
	sure := c.written-s.proven <= surelyTaken && s.info.CharTime == 0
	s.mu.Unlock()
	if sure {
		s.lend(crowd)
	} else {
		s.wake()
	}
	return c.outcome, nil
}

// forget says that nobody waits for the outcome any more.
func (s *Session) forget(id uint64, result chan outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[id].outcome == result {
		delete(s.calls, id)
	}
	select {
	case <-result: // too late
	default:
	}
	s.spare = result
}

// giveUp ends the calls that are due, and returns when the next one is, 0 if
// none is. The caller holds mu.
func (s *Session) giveUp(now time.Duration) (next time.Duration) {
	for id, c := range s.calls {
		switch {
		case c.due == 0:
		case c.due <= now:
			delete(s.calls, id)
			c.outcome <- outcome{err: context.DeadlineExceeded}
		case next == 0 || c.due < next:
			next = c.due
		}
	}
	return next
}

// refuseCalls ends all calls with the session. The caller holds mu.
func (s *Session) refuseCalls() {
	err := s.end.err
	if err == nil {
		err = errNotOpen
	}
	for _, c := range s.calls {
		c.outcome <- outcome{err: err}
	}
	s.calls = nil
}

// errNotOpen is the reason of requests on a session that was stopped here.
var errNotOpen = errors.New("the session is not open")

func (s *Session) notOpen() error {
	if _, err := s.State(); err != nil {
		return err
	}
	return errNotOpen
}

// Call asks, waits RequestTimeout, and asks up to RequestRetries times more
// where the peer promises to do a repeated request only once.
func (s *Session) Call(ctx context.Context, r Request) (Response, error) {
	r.ID = s.NewRequestID()
	for try := 0; ; try++ {
		answer, err := s.request(ctx, &r, RequestTimeout)
		last := try == RequestRetries || !s.Peer().Deduplicates || ctx.Err() != nil
		if err == nil || last || !errors.Is(err, context.DeadlineExceeded) {
			return answer, err
		}
	}
}

func (s *Session) handleResponse(payload []byte) error {
	var r Response
	if err := r.Unmarshal(payload); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, waited := s.calls[r.ID]; waited {
		delete(s.calls, r.ID)
		s.proven = max(s.proven, c.written)
		r.Payload = bytes.Clone(r.Payload)
		c.outcome <- outcome{response: r}
	}
	return nil
}

// handleRequest lets the handler answer in a goroutine of its own, or repeats
// an answer given before.
func (s *Session) handleRequest(payload []byte) error {
	var r Request
	if err := r.Unmarshal(payload); err != nil {
		return err
	}
	if r.Method == MethodTokenExpires && s.cfg.Role == Client {
		return s.respond(Response{ID: r.ID}) // who holds the token sees to it
	}
	if !s.mayRun() {
		s.cfg.Counters.RequestsRefused.Add(1)
		return s.respond(Response{ID: r.ID, Code: CodeBusy, Reason: fmt.Sprintf("%d requests at once are all there may be", s.cfg.MaxRequests)})
	}
	key := answerKey{id: r.ID}
	if s.cfg.Answers != nil {
		peer := s.Peer()
		key.sender, key.epoch = peer.Sender, peer.Epoch
		known, verdict := s.cfg.Answers.begin(key, time.Now())
		if verdict != answerNew {
			s.hasRun()
			switch verdict {
			case answerKnown:
				return s.respond(known)
			case answerFull:
				s.cfg.Counters.RequestsRefused.Add(1)
				return s.respond(Response{ID: r.ID, Code: CodeBusy, Reason: "too many answers are kept"})
			}
			return nil // it runs, and will answer
		}
	}
	r.Payload = bytes.Clone(r.Payload)
	j := job{request: r, key: key}
	if r.TimeLeft > 0 {
		j.due = time.Now().Add(r.TimeLeft)
	}
	s.employ(j)
	return nil
}

// mayRun counts a request of the peer's in, if it is not one too many.
func (s *Session) mayRun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests == s.cfg.MaxRequests {
		return false
	}
	s.requests++
	return true
}

// hasRun counts it out, and says whether there are others.
func (s *Session) hasRun() (others bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests--
	return s.requests > 0
}

// respond sends an answer that the reader gives.
func (s *Session) respond(r Response) error {
	err := s.queue(&r)
	s.wake()
	return err
}

// queue puts an answer where collect finds it, or says that it is too large for
// the peer.
func (s *Session) queue(r *Response) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := s.begin(CommandResponse)
	s.control = r.Append(s.control)
	err := s.finishFrame(start)
	if IsCode(err, CodeTooLarge) {
		large := Response{ID: r.ID, Code: CodeTooLarge, Reason: "the answer is larger than you take"}
		start = s.begin(CommandResponse)
		s.control = large.Append(s.control)
		err = s.finishFrame(start)
	}
	return err
}
