package mcp

import "time"

// appendPublishes takes from the outboxes what the window permits. The caller
// holds the session's mu.
func (w *writer) appendPublishes(version uint8) error {
	s := w.s
	a := allowance{records: s.peer.WindowRecords, bytes: s.peer.WindowBytes, payload: s.peerPayload(version)}
	for _, o := range s.cfg.Outboxes {
		records, bytes := o.inFlight()
		a.records -= records
		a.bytes -= bytes
	}
	a.idle = a.records == s.peer.WindowRecords
	limit := maxWrite
	if s.info.CharTime > 0 {
		limit = 1 // a frame at a time, so that nothing urgent waits behind many
	}
	for _, o := range s.cfg.Outboxes {
		for len(w.buf) < limit {
			var records, bytes int
			var err error
			w.buf, records, bytes, err = o.appendFrame(w.buf, version, a)
			if err != nil {
				return err
			}
			if records == 0 {
				break
			}
			a.records -= records
			a.bytes -= bytes
			a.idle = false
		}
	}
	return nil
}

// tickResend sends again what was not acknowledged, on a line that loses
// frames: no later frame may ever come to show that the last one was lost.
func (w *writer) tickResend(now time.Time) time.Duration {
	s := w.s
	if s.info.Reliable {
		return s.cfg.Heartbeat
	}
	var acked uint64
	waiting, unopened := false, false
	for _, o := range s.cfg.Outboxes {
		sent, open := o.progress()
		acked += o.Stats().Acknowledged
		waiting = waiting || sent || !open
		unopened = unopened || !open
	}
	if acked != w.acked || !waiting || !w.waiting {
		w.since, w.resendIn = now, resendFirst
	}
	w.acked, w.waiting = acked, waiting
	if !waiting {
		return resendMax
	}
	if now.Sub(w.since) >= w.resendIn {
		w.since, w.resendIn = now, min(2*w.resendIn, resendMax)
		w.resend(unopened)
	}
	return w.since.Add(w.resendIn).Sub(now)
}

func (w *writer) resend(unopened bool) {
	s := w.s
	for _, o := range s.cfg.Outboxes {
		o.rewind()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
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
