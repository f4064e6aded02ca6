package mcp

import "time"

// appendPublishes takes from the outboxes what the peer's window and the link
// permit. The caller holds the session's mu.
func (w *writer) appendPublishes(version uint8) error {
	s := w.s
	if len(s.cfg.Outboxes) == 0 || s.peer.WindowRecords == 0 {
		return nil
	}
	a := s.allowance(version)
	limit := maxWrite
	if s.info.CharTime > 0 {
		limit = 1 // a frame at a time, so that nothing urgent waits behind many
	}
	for _, bestEffort := range [...]bool{false, true} {
		for i, o := range s.cfg.Outboxes {
			if o.cfg.BestEffort != bestEffort || s.hasLane(i) {
				continue
			}
			if len(s.lanes) > 0 {
				a = s.share(o)
			}
			if err := w.appendFrom(o, version, &a, limit); err != nil {
				return err
			}
		}
	}
	return nil
}

// allowance is what the peer has room for now. The caller holds mu.
func (s *Session) allowance(version uint8) allowance {
	a := allowance{records: s.peer.WindowRecords, bytes: s.peer.WindowBytes, payload: s.peerPayload(version)}
	for _, o := range s.cfg.Outboxes {
		records, bytes := o.inFlight()
		a.records -= records
		a.bytes -= bytes
	}
	a.idle = a.records == s.peer.WindowRecords
	return a
}

// appendFrom takes from one outbox, until buf has limit bytes. The caller holds
// the session's mu.
func (w *writer) appendFrom(o *Outbox, version uint8, a *allowance, limit int) error {
	pace := w.s.pace
	if o.cfg.BestEffort {
		pace = nil // what is never acknowledged tells nothing about the link
	}
	for len(w.buf) < limit {
		var now time.Time
		if pace != nil {
			now = time.Now()
			a.full = pace.room(now) <= 0
		}
		buf, b, err := o.appendFrame(w.buf, version, *a)
		w.buf = buf
		if err != nil || b.records == 0 {
			return err
		}
		if pace != nil {
			pace.sent(now, o, b.last, b.size, b.repeated)
		}
		if !b.missing && !o.cfg.BestEffort {
			a.records -= b.records
			a.bytes -= b.size
			a.idle = false
		}
	}
	return nil
}

// tickResend does on a link that loses frames what time demands, and says when
// to look again.
func (w *writer) tickResend(now time.Time) time.Duration {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != Open {
		return resendMax
	}
	return min(s.tickHoles(now), s.tickPace(now))
}

// tickPace sends again what was not acknowledged in time: no later frame may
// ever come to show that the last one was lost. The caller holds mu.
func (s *Session) tickPace(now time.Time) time.Duration {
	waiting, unopened := false, false
	for _, o := range s.cfg.Outboxes {
		sent, open := o.progress()
		waiting = waiting || sent
		unopened = unopened || !open
	}
	p, next := s.pace, resendMax
	if waiting || unopened {
		if p.overdue(now) <= 0 {
			s.resend(now, unopened)
		}
		next = p.overdue(now)
	}
	if p.room(now) <= 0 {
		next = min(next, p.more(now))
	}
	return next
}

// resend begins again with the first record that is not acknowledged. The caller
// holds mu.
func (s *Session) resend(now time.Time, unopened bool) {
	s.pace.timedOut(now)
	for _, o := range s.cfg.Outboxes {
		o.rewind()
	}
	if unopened && s.welcome != nil {
		_ = s.postLocked(CommandWelcome, s.welcome) // it fitted the first time
	}
	s.wake()
}

func (s *Session) handleAck(payload []byte) error {
	acks, err := ParseAck(s.acks[:0], payload)
	if err != nil {
		return err
	}
	s.acks = acks
	for _, p := range acks {
		o := s.outboxes[p.Channel]
		if o == nil {
			continue
		}
		if err := o.acknowledge(p); err != nil {
			return err
		}
		if s.pace != nil {
			s.pacedBy(o, p)
		}
	}
	s.wake()
	s.wakeLanes()
	return nil
}

// pacedBy learns from an acknowledgement how the link does.
func (s *Session) pacedBy(o *Outbox, p Position) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pace.acknowledged(now, o, p.Number)
	if p.ResendFrom != 0 {
		s.pace.lost(now)
		if p.ResendTo == 0 {
			s.pace.forget(o)
		}
	}
}
