package mcp

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// read hands on what the peer says until nothing more can come. Once the
// session has ended it only listens for the peer to hang up, so that what the
// peer is told last is not lost in a reset.
func (s *Session) read(ctx context.Context) {
	if s.cfg.Role == Client || s.info.Reliable || s.info.MaxMessage > 0 {
		s.setReadDeadline(time.Now().Add(s.cfg.HelloTimeout))
	}
	for {
		msg, err := s.conn.Read()
		if err == nil {
			s.heard.Store(int64(s.now()))
			err = s.handleMessage(ctx, msg)
		} else {
			err = s.readFailed(ctx, err)
		}
		if err == nil {
			continue
		}
		s.fail(err)
		if hungUp(err) {
			return
		}
	}
}

// hungUp says that nothing more will come.
func hungUp(err error) bool {
	var e *Error
	return errors.Is(err, net.ErrClosed) || errors.Is(err, transport.ErrLost) || errors.As(err, &e) && e.Remote
}

func (s *Session) setReadDeadline(t time.Time) {
	if err := s.conn.SetReadDeadline(t); err != nil {
		s.fail(err)
	}
}

// readFailed says whether a failed Read ends the session.
func (s *Session) readFailed(ctx context.Context, err error) error {
	state, _ := s.State()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.setReadDeadline(time.Time{})
		if state != Connecting || s.ended() {
			return nil
		}
		return s.helloLate(ctx)
	case errors.Is(err, transport.ErrFrame), errors.Is(err, transport.ErrTooLarge):
		if s.ended() {
			return nil
		}
		s.cfg.Counters.BadFrames.Add(1)
		if !s.info.Reliable {
			return nil // the framer resynchronises
		}
		if errors.Is(err, ErrVersion) {
			s.version.Store(Version2)
		}
		return err
	case errors.Is(err, net.ErrClosed), errors.Is(err, transport.ErrLost):
		return err
	}
	return transport.Lost(err)
}

func (s *Session) handleMessage(ctx context.Context, msg []byte) error {
	f, err := ParseFrame(msg)
	if err != nil {
		return s.readFailed(ctx, err)
	}
	s.mu.Lock()
	state, ended := s.state, s.end != nil
	s.mu.Unlock()
	if ended {
		if f.Command == CommandClose || f.Command == CommandError {
			return parseReason(f.Payload)
		}
		return nil
	}
	s.version.Store(uint32(f.Version))
	if state != Connecting {
		return s.handle(ctx, f)
	}
	if err := s.handshake(ctx, f); err != nil {
		return err
	}
	if state, _ = s.State(); state == Open {
		s.setReadDeadline(time.Time{})
	}
	return nil
}

// handle does what a frame says while OPEN.
func (s *Session) handle(ctx context.Context, f Frame) error {
	switch f.Command {
	case CommandPublish:
		return s.handlePublish(ctx, f.Payload)
	case CommandAck:
		return s.handleAck(f.Payload)
	case CommandHeartbeat:
		s.mu.Lock()
		s.beatAck = true
		s.mu.Unlock()
		s.wake()
		return nil
	case CommandHeartbeatAck:
		return nil // having heard it is all
	case CommandRequest:
		return s.handleRequest(f.Payload)
	case CommandResponse:
		return s.handleResponse(f.Payload)
	case CommandHello:
		if s.cfg.Role == Server && (!s.info.Reliable || s.Peer().Anonymous) {
			return s.acceptHello(ctx, f.Payload)
		}
	case CommandWelcome:
		if s.cfg.Role == Client && s.Peer().Anonymous {
			return s.acceptWelcome(ctx, f.Payload)
		}
		if !s.info.Reliable {
			return s.repeatWelcome(f.Payload)
		}
	case CommandClose, CommandError:
		return s.handleEnd(f)
	default:
		return refuse(CodeUnknownCommand, "%s", f.Command)
	}
	return refuse(CodeUnexpected, "%s", f.Command)
}

// handleEnd returns what the peer says as the session's end. A CLOSE is
// answered with one, so that a peer on a line that can't hang up knows.
func (s *Session) handleEnd(f Frame) error {
	e := parseReason(f.Payload)
	if f.Command == CommandClose {
		s.finishWith(ending{err: e, tell: &Error{Code: CodeOK}, closed: true})
	}
	return e
}
