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
		s.held.records -= p.size.records
		s.held.bytes -= p.size.bytes
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

// appendAcks says in as few frames as possible how far each channel is. The
// caller holds the session's mu.
func (w *writer) appendAcks(version uint8) {
	w.positions = w.positions[:0]
	size, limit := 0, w.s.peerPayload(version)
	for _, c := range w.s.inbound {
		if !c.ackDue {
			continue
		}
		p := Position{Channel: c.name, Number: c.safe, ResendFrom: c.resend}
		c.ackDue, c.resend = false, 0
		if size += p.size() + 3; size > limit {
			w.appendAck(version)
			size = p.size() + 3
		}
		w.positions = append(w.positions, p)
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
