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

// Request asks once and waits until ctx ends. The caller may ask again with the
// same ID only if Peer says that it Deduplicates, or if doing it twice does no
// harm. It fails with an *Error if the peer said no, with the session's end if
// that comes first.
func (s *Session) Request(ctx context.Context, r Request) (Response, error) {
	if r.ID == 0 {
		r.ID = s.NewRequestID()
	}
	answer := make(chan Response, 1)
	s.mu.Lock()
	if s.state != Open || s.end != nil {
		s.mu.Unlock()
		return Response{}, s.notOpen(r.Method)
	}
	s.calls[r.ID] = answer
	err := s.postLocked(CommandRequest, r.Append(nil))
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.calls, r.ID)
		s.mu.Unlock()
	}()
	if err != nil {
		return Response{}, fmt.Errorf("mcp: request %s: %w", r.Method, err)
	}
	select {
	case a := <-answer:
		if a.Code != CodeOK {
			return a, fmt.Errorf("mcp: request %s: %w", r.Method, &Error{Code: a.Code, Reason: a.Reason, Remote: true})
		}
		return a, nil
	case <-s.done:
		return Response{}, s.notOpen(r.Method)
	case <-ctx.Done():
		return Response{}, fmt.Errorf("mcp: request %s: %w", r.Method, ctx.Err())
	}
}

// errNotOpen is the reason of requests on a session that was stopped here.
var errNotOpen = errors.New("the session is not open")

func (s *Session) notOpen(method string) error {
	_, err := s.State()
	if err == nil {
		err = errNotOpen
	}
	return fmt.Errorf("mcp: request %s: %w", method, err)
}

// Call asks, waits RequestTimeout, and asks up to RequestRetries times more
// where the peer promises to do a repeated request only once.
func (s *Session) Call(ctx context.Context, r Request) (Response, error) {
	r.ID = s.NewRequestID()
	for try := 0; ; try++ {
		once, cancel := context.WithTimeout(ctx, RequestTimeout)
		answer, err := s.Request(once, r)
		cancel()
		last := try == RequestRetries || !s.Peer().Deduplicates || ctx.Err() != nil
		if last || !errors.Is(err, context.DeadlineExceeded) {
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
	answer := s.calls[r.ID]
	delete(s.calls, r.ID)
	s.mu.Unlock()
	if answer != nil { // else nobody waits any more
		r.Payload = bytes.Clone(r.Payload)
		answer <- r
	}
	return nil
}

// handleRequest lets the handler answer in a goroutine of its own, or repeats
// an answer given before.
func (s *Session) handleRequest(ctx context.Context, payload []byte) error {
	var r Request
	if err := r.Unmarshal(payload); err != nil {
		return err
	}
	select {
	case s.requests <- struct{}{}:
	default:
		return s.respond(Response{ID: r.ID, Code: CodeBusy, Reason: "too many requests at once"})
	}
	key := answerKey{id: r.ID}
	if s.cfg.Answers != nil {
		peer := s.Peer()
		key.sender, key.epoch = peer.Sender, peer.Epoch
		known, verdict := s.cfg.Answers.begin(key, time.Now())
		if verdict != answerNew {
			<-s.requests
			switch verdict {
			case answerKnown:
				return s.respond(known)
			case answerFull:
				return s.respond(Response{ID: r.ID, Code: CodeBusy, Reason: "too many answers are kept"})
			}
			return nil // it runs, and will answer
		}
	}
	r.Payload = bytes.Clone(r.Payload)
	s.running.Go(func() {
		defer func() { <-s.requests }()
		answer := s.handler.Request(ctx, r)
		answer.ID = r.ID
		if s.cfg.Answers != nil {
			s.cfg.Answers.end(key, answer, time.Now())
		}
		if err := s.respond(answer); err != nil {
			s.fail(err)
		}
	})
	return nil
}

// respond sends an answer, or says that it is too large for the peer.
func (s *Session) respond(r Response) error {
	err := s.post(CommandResponse, r.Append(nil))
	if IsCode(err, CodeTooLarge) {
		r = Response{ID: r.ID, Code: CodeTooLarge, Reason: "the answer is larger than you take"}
		return s.post(CommandResponse, r.Append(nil))
	}
	return err
}
