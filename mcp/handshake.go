package mcp

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ourHello is what we say of ourselves.
func (s *Session) ourHello() Hello {
	h := Hello{
		Sender: s.cfg.Name, Epoch: s.cfg.Epoch, Token: s.cfg.Token, Software: s.cfg.Software,
		Versions:     []uint8{Version1, Version2},
		Heartbeat:    s.cfg.Heartbeat,
		Deduplicates: s.cfg.Answers != nil,
		MaxPayload:   s.cfg.MaxPayload, WindowRecords: s.cfg.WindowRecords, WindowBytes: s.cfg.WindowBytes,
	}
	for _, o := range s.cfg.Outboxes {
		h.Channels = append(h.Channels, o.cfg.Channel)
	}
	return h
}

func (s *Session) sayHello() {
	hello := s.ourHello()
	if err := s.post(CommandHello, hello.Append(nil)); err != nil {
		s.fail(err)
	}
}

// handshake handles a frame while CONNECTING. On a line that loses bytes, and
// that stays up when a peer restarts, frames of the conversation before may
// still come; on any other link they are a fault.
func (s *Session) handshake(ctx context.Context, f Frame) error {
	switch {
	case f.Command == CommandHello && s.cfg.Role == Server:
		return s.acceptHello(ctx, f.Payload)
	case f.Command == CommandWelcome && s.cfg.Role == Client:
		return s.acceptWelcome(ctx, f.Payload)
	case f.Command == CommandError:
		e := parseReason(f.Payload)
		if e.Code == CodeHelloExpected && !s.info.Reliable {
			return nil // to something we said before
		}
		return e
	case f.Command == CommandClose:
		return parseReason(f.Payload)
	case s.cfg.Role == Client && !s.info.Reliable:
		s.stranger = s.stranger || f.Command == CommandPublish
		return nil // WELCOME may still come; until then nothing is acknowledged
	case s.cfg.Role == Client && s.cfg.Anonymous == "":
		return refuse(CodeUnexpected, "%s instead of WELCOME", f.Command)
	case s.cfg.Anonymous != "":
		if err := s.acceptAnonymous(ctx); err != nil {
			return err
		}
		return s.handle(ctx, f)
	case s.info.Reliable:
		return refuse(CodeHelloExpected, "%s came first", f.Command)
	}
	return s.post(CommandError, refuse(CodeHelloExpected, "%s came first", f.Command).appendReason(nil))
}

// acceptHello opens the session. On a line that loses bytes and stays up, HELLO
// may come again: from a peer that has not heard our WELCOME, whose channels go
// on as they are, or from one that has restarted, with a new epoch.
func (s *Session) acceptHello(ctx context.Context, payload []byte) error {
	s.taking.Lock() // after a peer that was anonymous so far, which may PUBLISH on other streams
	defer s.taking.Unlock()
	var hello Hello
	if err := hello.Unmarshal(payload); err != nil {
		return err
	}
	peer := s.introduced(hello)
	if err := s.handler.Open(ctx, peer); err != nil {
		return err
	}
	var known map[string]*inbound
	if last := s.Peer(); last.Sender == hello.Sender && last.Epoch == hello.Epoch {
		known = s.inbound
	}
	inbound, positions, err := s.openChannels(hello.Channels, known)
	if err != nil {
		return err
	}
	welcome := Welcome{Hello: s.ourHello(), Positions: positions}
	welcome.Token = ""
	welcome.Heartbeat = agreedHeartbeat(s.cfg.Heartbeat, hello.Heartbeat)
	s.attachOutboxes() // their positions come with the peer's first ACK
	return s.open(peer, welcome.Heartbeat, inbound, CommandWelcome, welcome.Append(nil))
}

func (s *Session) acceptWelcome(ctx context.Context, payload []byte) error {
	s.taking.Lock() // as in acceptHello
	defer s.taking.Unlock()
	var w Welcome
	if err := w.Unmarshal(payload); err != nil {
		return err
	}
	peer := s.introduced(w.Hello)
	if err := s.handler.Open(ctx, peer); err != nil {
		return err
	}
	inbound, positions, err := s.openChannels(w.Channels, nil)
	if err != nil {
		return err
	}
	for _, o := range s.cfg.Outboxes {
		var safe uint64
		for _, p := range w.Positions {
			if p.Channel == o.cfg.Channel {
				safe = p.Number
			}
		}
		if err := o.start(safe); err != nil {
			return err
		}
	}
	var ack []byte
	if len(positions) > 0 {
		ack = AppendAck(nil, positions)
	}
	return s.open(peer, agreedHeartbeat(s.cfg.Heartbeat, w.Heartbeat), inbound, CommandAck, ack)
}

// introduced is the peer with what its transport tells of it, which is known
// only now: an accepted Conn has made its handshake in the first Read.
func (s *Session) introduced(hello Hello) Peer {
	info := s.conn.Info()
	return Peer{Hello: hello, Names: info.Names, Confirmed: info.Confirmed}
}

// acceptAnonymous opens the session with a peer that does not introduce itself.
func (s *Session) acceptAnonymous(ctx context.Context) error {
	peer := s.introduced(Hello{Sender: s.cfg.Anonymous})
	peer.Anonymous = true
	if err := s.handler.Open(ctx, peer); err != nil {
		return err
	}
	return s.open(peer, s.cfg.Heartbeat, nil, 0, nil)
}

// open makes the session OPEN and queues what the peer must hear first.
func (s *Session) open(peer Peer, heartbeat time.Duration, in map[string]*inbound, c Command, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return nil
	}
	s.peer, s.heartbeat, s.inbound = peer, heartbeat, in
	if s.inbound == nil {
		s.inbound = make(map[string]*inbound)
	}
	for _, o := range s.cfg.Outboxes {
		o.fit(s.peerPayload(uint8(s.version.Load())))
	}
	s.beginLink()
	s.resetTimer(heartbeat)
	s.peer.Token = "" // it may be long, and has done its work
	if c == CommandWelcome && !s.info.Reliable {
		s.welcome = payload
	}
	if payload != nil {
		if err := s.postLocked(c, payload); err != nil {
			return err
		}
	}
	if s.state == Connecting {
		s.state, s.openedAt = Open, time.Now()
		s.opened.happens()
		s.startStreams()
	}
	s.wake()
	return nil
}

// openChannels asks the handler what is safe of each channel. A known one goes
// on as it is: more may be on its way to the disk than is safe.
func (s *Session) openChannels(names []string, known map[string]*inbound) (map[string]*inbound, []Position, error) {
	in := make(map[string]*inbound, len(names))
	var positions []Position
	for _, name := range names {
		if in[name] != nil {
			return nil, nil, fmt.Errorf("%w: the channel %q is named twice", ErrPayload, name)
		}
		safe, err := s.handler.Channel(name)
		if err != nil {
			return nil, nil, err
		}
		c := known[name]
		if c == nil {
			c = &inbound{name: name, received: safe, safe: safe, told: safe}
		}
		in[name] = c
		s.mu.Lock()
		positions = append(positions, Position{Channel: name, Number: c.safe})
		s.mu.Unlock()
	}
	return in, positions, nil
}

// repeatWelcome answers a WELCOME that came again: the peer still wants to know
// where its channels are.
func (s *Session) repeatWelcome(payload []byte) error {
	var w Welcome
	if err := w.Unmarshal(payload); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.Epoch != s.peer.Epoch {
		return refuse(CodeHelloExpected, "you have restarted")
	}
	for _, name := range w.Channels {
		if c := s.inbound[name]; c != nil {
			c.ackDue = true
		}
	}
	s.wake()
	return nil
}

// agreedHeartbeat is the shorter interval, but not so short that heartbeats
// become a load.
func agreedHeartbeat(ours, theirs time.Duration) time.Duration {
	if theirs <= 0 {
		return ours
	}
	return min(ours, max(theirs, time.Second))
}

// helloLate decides what to do when the handshake has taken too long.
func (s *Session) helloLate(ctx context.Context) error {
	if s.cfg.Role == Client && s.cfg.Anonymous != "" && s.stranger {
		return s.acceptAnonymous(ctx)
	}
	if s.cfg.Role == Server {
		return refuse(CodeHelloTimeout, "no HELLO within %s", s.cfg.HelloTimeout)
	}
	return refuse(CodeHelloTimeout, "no WELCOME within %s", s.cfg.HelloTimeout)
}

// IsCode says whether err is an *Error with this code.
func IsCode(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
