package mcp

import (
	"context"
	"fmt"
	"time"
)

// inbound is a channel that the peer publishes on.
type inbound struct {
	name     string
	received uint64 // highest number handed to the handler
	safe     uint64 // highest number that is on disk
	told     uint64 // safe when the session began, as the peer has heard; 0: it hasn't, or was set back
	ackDue   bool
	ask      []span // is missing, to be said in the next ACK; to 0: all behind from, too

	// On a link that keeps order:
	holeSaid time.Time // when the hole behind received was named last
	holeAt   uint64    // received, then

	// On one that loses frames:
	early reorder
}

// window counts records on their way to the disk.
type window struct{ records, bytes int }

func (w *window) add(v window) { w.records, w.bytes = w.records+v.records, w.bytes+v.bytes }
func (w *window) sub(v window) { w.records, w.bytes = w.records-v.records, w.bytes-v.bytes }

// pending is a PUBLISH on its way to the disk.
type pending struct {
	channel *inbound
	last    uint64
	size    window
	commit  Commit
}

// handlePublish takes a PUBLISH, and those that came early and have waited for
// it. It may be called concurrently, once for each channel at a time; the
// handler sees one after the other.
func (s *Session) handlePublish(ctx context.Context, payload []byte) error {
	s.taking.Lock()
	defer s.taking.Unlock()
	p := &s.publish
	if err := p.Unmarshal(payload); err != nil {
		return err
	}
	c, err := s.channel(p.Channel)
	if err != nil {
		return err
	}
	if p.BestEffort {
		return s.takeOnce(ctx, c, p)
	}
	for {
		fits, err := s.admit(c, p)
		if err != nil {
			return err
		}
		if fits {
			if err := s.take(ctx, c, p); err != nil {
				return err
			}
		}
		waiting, ok := s.nextEarly(c)
		if !ok {
			return nil
		}
		if err := p.Unmarshal(waiting.payload); err != nil {
			return err
		}
	}
}

// take gives p to the handler. The caller holds taking.
func (s *Session) take(ctx context.Context, c *inbound, p *Publish) error {
	commit, err := s.handOver(ctx, p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.received = p.Last()
	if commit == nil && len(s.pending) == 0 {
		c.safe, c.ackDue = p.Last(), true
		s.wake()
		return nil
	}
	size := window{p.Len(), p.Bytes()}
	s.held.add(size)
	s.pending = append(s.pending, pending{channel: c, last: p.Last(), size: size, commit: commit})
	if len(s.pending) == 1 {
		s.wake() // the writer waits for the first one
	}
	return nil
}

// handOver calls the handler, which may take its time: the peer's silence then
// proves nothing.
func (s *Session) handOver(ctx context.Context, p *Publish) (Commit, error) {
	s.blocked.Store(true)
	commit, err := s.handler.Publish(ctx, p)
	s.heard.Store(int64(time.Since(s.start)))
	s.blocked.Store(false)
	if err == nil {
		s.cfg.Counters.Publishes.Add(1)
		s.cfg.Counters.Records.Add(uint64(p.Len()))
	}
	return commit, err
}

// takeOnce takes best-effort records that are newer than all before. Nobody
// waits for their commit. The caller holds taking.
func (s *Session) takeOnce(ctx context.Context, c *inbound, p *Publish) error {
	s.mu.Lock()
	received, anonymous := c.received, s.peer.Anonymous
	s.mu.Unlock()
	if !anonymous {
		if p.Last() <= received {
			s.cfg.Counters.Repeats.Add(uint64(p.Len()))
			return nil
		}
		if p.Previous > received {
			s.cfg.Counters.Lost.Add(p.Previous - received)
			p.Previous = received // what is between is none, and never will be
		}
		p.skip(received)
		s.cfg.Counters.Repeats.Add(uint64(p.repeats))
	}
	if _, err := s.handOver(ctx, p); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.received, c.safe = p.Last(), p.Last()
	return nil
}

// channel finds the state of a channel, asking the handler for one that the
// handshake did not name. The caller holds taking.
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

// admit decides by its numbers whether p goes to the handler now.
func (s *Session) admit(c *inbound, p *Publish) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.peer.Anonymous {
		if s.info.Reliable && p.First() <= c.told {
			s.setBack(c, p.First())
		}
		switch {
		case p.Last() <= c.received:
			s.repeated(c, p)
			return false, nil
		case p.Previous > c.received && s.info.Reliable:
			s.nameHole(c)
			return false, nil
		case p.Previous > c.received:
			s.keepEarly(c, p)
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

// repeated drops what is there already, and says so: the acknowledgement may
// have been lost. The caller holds mu.
func (s *Session) repeated(c *inbound, p *Publish) {
	s.cfg.Counters.Repeats.Add(uint64(p.Len()))
	if s.overtaking != nil {
		s.overtaking.twice(p.Last())
	}
	c.ackDue = true
	s.wake()
}

// setBack reports a peer that does not know its own numbers. The caller holds mu.
func (s *Session) setBack(c *inbound, published uint64) {
	s.cfg.Counters.SetBacks.Add(1)
	if h, ok := s.handler.(SetBackHandler); ok {
		h.SetBack(c.name, c.told, published)
	}
	c.told = 0 // once is enough
}

// nameHole asks for what is missing on a link that loses nothing, where it is
// the sender who has left it out. What is under way behind the hole is refused
// as well, so it is named once and then only now and then: else each of those
// frames would be sent again as often.
func (s *Session) nameHole(c *inbound) {
	s.cfg.Counters.Holes.Add(1)
	now := time.Now()
	if c.holeAt == c.received && now.Sub(c.holeSaid) < holeRepeat {
		return
	}
	c.holeAt, c.holeSaid = c.received, now
	c.ask, c.ackDue = append(c.ask[:0], span{from: c.received + 1}), true
	s.wake()
}

// keepEarly keeps p until what is before it has come. The sender is within its
// window, so there is room; what goes beyond is dropped, as if it was lost. The
// caller holds mu.
func (s *Session) keepEarly(c *inbound, p *Publish) {
	s.cfg.Counters.Holes.Add(1)
	if s.held.records+s.waiting.records+p.Len() > s.cfg.WindowRecords ||
		s.held.bytes+s.waiting.bytes+p.Bytes() > s.cfg.WindowBytes || s.ahead == maxEarly {
		return
	}
	if !c.early.keep(p, time.Now()) {
		s.cfg.Counters.Repeats.Add(uint64(p.Len()))
		s.overtaking.twice(p.Last())
		return
	}
	s.waiting.add(window{p.Len(), p.Bytes()})
	s.ahead++
	s.wake() // to look after the hole
}

// nextEarly takes the next PUBLISH that has waited, if its turn has come.
func (s *Session) nextEarly(c *inbound) (early, bool) {
	if s.info.Reliable {
		return early{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := c.early.next(c.received)
	if ok {
		s.waiting.sub(e.size)
		s.ahead--
		s.overtaking.closed(&e, time.Now())
	}
	return e, ok
}

// tickHoles asks for what is missing, and says when to look again. The caller
// holds mu.
func (s *Session) tickHoles(now time.Time) time.Duration {
	next := resendMax
	if s.ahead == 0 {
		return next
	}
	o := s.overtaking
	for _, c := range s.inbound {
		if len(c.early) == 0 {
			continue
		}
		next = min(next, c.early.holes(c.received, now, o.patience, o.timeout(), func(hole span) {
			o.ask(hole)
			c.ask, c.ackDue = append(c.ask, hole), true
			s.wake()
		}))
	}
	return next
}

// settle moves safe numbers up past the commits that have ended. The caller
// holds mu.
func (s *Session) settle() (head <-chan struct{}, err error) {
	n := 0
	for ; n < len(s.pending); n++ {
		p := &s.pending[n]
		if p.commit != nil {
			head = p.commit.Done()
			select {
			case <-head:
			default:
				s.drop(n)
				return head, nil
			}
			if err := p.commit.Err(); err != nil {
				s.drop(n)
				return nil, err
			}
		}
		p.channel.safe, p.channel.ackDue = p.last, true
		s.held.sub(p.size)
	}
	s.drop(n)
	return nil, nil
}

// drop forgets the first n pending.
func (s *Session) drop(n int) {
	left := copy(s.pending, s.pending[n:])
	clear(s.pending[left:])
	s.pending = s.pending[:left]
}

// appendAcks says in as few frames as possible how far each channel is, and what
// is missing. The caller holds the session's mu.
func (w *writer) appendAcks(version uint8) {
	w.positions = w.positions[:0]
	size, limit := 0, w.s.peerPayload(version)
	for _, c := range w.s.inbound {
		if !c.ackDue {
			continue
		}
		p := Position{Channel: c.name, Number: c.safe}
		for i := range max(len(c.ask), 1) {
			if i < len(c.ask) {
				p.ResendFrom, p.ResendTo = c.ask[i].from, c.ask[i].to
			}
			if size += p.size() + 3; size > limit || len(w.positions) == MaxChannels {
				w.appendAck(version)
				size = p.size() + 3
			}
			w.positions = append(w.positions, p)
		}
		c.ackDue, c.ask = false, c.ask[:0]
	}
	w.appendAck(version)
}

func (w *writer) appendAck(version uint8) {
	if len(w.positions) == 0 {
		return
	}
	start := len(w.buf)
	w.buf = AppendAck(beginFrame(w.buf, version, CommandAck), w.positions)
	w.buf, _ = endFrame(w.buf, start) // can't fail: appendAcks minds the size
	w.positions = w.positions[:0]
}
