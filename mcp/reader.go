package mcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// inbound is a channel that the peer publishes on.
type inbound struct {
	name     string
	received uint64 // highest number handed to the handler
	safe     uint64 // highest number that is on disk
	ackDue   bool
	resend   uint64    // to be said in the next ACK, as resend_from
	holeSaid time.Time // when the hole behind received was named last
	holeAt   uint64    // received, then
}

// window counts records on their way to the disk.
type window struct{ records, bytes int }

// pending is a PUBLISH on its way to the disk.
type pending struct {
	channel *inbound
	last    uint64
	size    window
	commit  Commit
}

// read hands on what the peer says until nothing more can come. Once the
// session has ended it only listens for the peer to hang up, so that what the
// peer is told last is not lost in a reset.
func (s *Session) read(ctx context.Context) {
	if s.cfg.Role == Client || s.info.Reliable {
		s.setReadDeadline(time.Now().Add(s.cfg.HelloTimeout))
	}
	for {
		msg, err := s.conn.Read()
		if err == nil {
			s.heard.Store(int64(time.Since(s.start)))
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
		return s.handleRequest(ctx, f.Payload)
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

func (s *Session) handleAck(payload []byte) error {
	acks, err := ParseAck(s.acks[:0], payload)
	if err != nil {
		return err
	}
	s.acks = acks
	for _, p := range acks {
		for _, o := range s.cfg.Outboxes {
			if o.cfg.Channel != p.Channel {
				continue
			}
			if err := o.acknowledge(p); err != nil {
				return err
			}
		}
	}
	s.wake()
	return nil
}

func (s *Session) handlePublish(ctx context.Context, payload []byte) error {
	p := &s.publish
	if err := p.Unmarshal(payload); err != nil {
		return err
	}
	channel, err := s.channel(p.Channel)
	if err != nil {
		return err
	}
	fits, err := s.admit(channel, p)
	if err != nil || !fits {
		return err
	}
	s.blocked.Store(true)
	commit, err := s.handler.Publish(ctx, p)
	s.heard.Store(int64(time.Since(s.start)))
	s.blocked.Store(false)
	if err != nil {
		return err
	}
	s.cfg.Counters.Publishes.Add(1)
	s.cfg.Counters.Records.Add(uint64(p.Len()))

	s.mu.Lock()
	defer s.mu.Unlock()
	channel.received = p.Last()
	if commit == nil && len(s.pending) == 0 {
		channel.safe, channel.ackDue = p.Last(), true
		s.wake()
		return nil
	}
	size := window{p.Len(), p.Bytes()}
	s.held.records += size.records
	s.held.bytes += size.bytes
	s.pending = append(s.pending, pending{channel: channel, last: p.Last(), size: size, commit: commit})
	if len(s.pending) == 1 {
		s.wake() // the writer waits for the first one
	}
	return nil
}

// channel finds the state of a channel, asking the handler for one that the
// handshake did not name.
func (s *Session) channel(name []byte) (*inbound, error) {
	s.mu.Lock()
	c, n, anonymous := s.inbound[string(name)], len(s.inbound), s.peer.Anonymous
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	if n == MaxChannels {
		return nil, fmt.Errorf("%w: more than %d channels", ErrPayload, MaxChannels)
	}
	c = &inbound{name: string(name)}
	if err := checkName("the channel's name", c.name); err != nil {
		return nil, err
	}
	if !anonymous {
		safe, err := s.handler.Channel(c.name)
		if err != nil {
			return nil, err
		}
		c.received, c.safe = safe, safe
	}
	s.mu.Lock()
	s.inbound[c.name] = c
	s.mu.Unlock()
	return c, nil
}

// admit decides by its numbers whether p goes to the handler.
func (s *Session) admit(c *inbound, p *Publish) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.peer.Anonymous {
		switch {
		case p.Previous > c.received:
			s.nameHole(c)
			return false, nil
		case p.Last() <= c.received:
			s.cfg.Counters.Repeats.Add(uint64(p.Len()))
			c.ackDue = true
			s.wake()
			return false, nil
		}
		p.skip(c.received)
		s.cfg.Counters.Repeats.Add(uint64(p.repeats))
	}
	if s.held.records+p.Len() > s.cfg.WindowRecords || s.held.bytes+p.Bytes() > s.cfg.WindowBytes {
		return false, refuse(CodeWindowExceeded, "%d records with %d bytes are not acknowledged yet, and %d with %d came; the window is %d with %d",
			s.held.records, s.held.bytes, p.Len(), p.Bytes(), s.cfg.WindowRecords, s.cfg.WindowBytes)
	}
	return true, nil
}

// nameHole asks for what is missing. All that was under way behind the hole is
// refused as well, so it is named once and then only now and then: else each of
// those frames would be sent again as often.
func (s *Session) nameHole(c *inbound) {
	s.cfg.Counters.Holes.Add(1)
	now := time.Now()
	if c.holeAt == c.received && now.Sub(c.holeSaid) < holeRepeat {
		return
	}
	c.holeAt, c.holeSaid = c.received, now
	c.resend, c.ackDue = c.received+1, true
	s.wake()
}
