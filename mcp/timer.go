package mcp

import "time"

// beats is what a Session keeps for its timer. Times count from the session's
// start. The session's mu guards it.
type beats struct {
	timer  *time.Timer
	fires  time.Duration // when the timer does
	sent   time.Duration // when something was written last
	spoken time.Duration // when that was more than heartbeats
	hello  time.Duration // when HELLO was said last
	hellos int           // said again
	asked  int           // HEARTBEATs sent since the peer was last heard
	lent   uint64        // the session's, when the timer fired last
	lentAt time.Duration // when that was seen first
	idle   bool          // nothing was said for a heartbeat's interval
}

// now is the time since the session's start, which no step of a clock moves.
func (s *Session) now() time.Duration { return time.Since(s.start) }

func (s *Session) startTimer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.beats
	now := s.now()
	b.sent, b.hello = now, now
	wait := min(s.tickConnecting(now), s.heartbeat)
	b.fires = now + wait
	b.timer = time.AfterFunc(wait, s.tick)
}

func (s *Session) stopTimer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats.timer.Stop()
}

// armFor has the timer fire within d at the latest. Too early does no harm.
func (s *Session) armFor(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resetTimer(d)
}

// resetTimer is armFor for a caller that holds mu.
func (s *Session) resetTimer(d time.Duration) {
	b := &s.beats
	if at := s.now() + d; b.timer != nil && at < b.fires && s.end == nil {
		b.fires = at
		b.timer.Reset(d)
	}
}

// tick does what time demands, and says when to look again.
func (s *Session) tick() {
	s.mu.Lock()
	if s.end != nil {
		s.mu.Unlock()
		return
	}
	now := s.now()
	next, err := s.watch(now)
	if s.callsDue > 0 {
		if s.callsDue <= now {
			s.callsDue = s.giveUp(now)
		}
		if s.callsDue > 0 {
			next = min(next, s.callsDue-now)
		}
	}
	next = max(next, time.Millisecond)
	s.beats.fires = now + next
	s.beats.timer.Reset(next)
	s.mu.Unlock()
	if err != nil {
		s.fail(err)
		return
	}
	s.flush(false)
}

// watch looks after the handshake, heartbeats and silence. It returns when to
// come again, or why the session ends. The caller holds mu.
func (s *Session) watch(now time.Duration) (time.Duration, error) {
	if s.state == Connecting {
		return s.tickConnecting(now), nil
	}
	b := &s.beats
	lent := s.lent.Load()
	switch {
	case lent == 0 || lent != b.lent:
		b.lent, b.lentAt = lent, now
	case now-b.lentAt >= s.heartbeat:
		return 0, refuse(CodeBusy, "you do not read what you answer")
	}
	if b.idle = now-b.spoken >= s.heartbeat; b.idle {
		s.dismiss()
	}
	silence := s.silence(now)
	missed := int(silence / s.heartbeat)
	switch {
	case missed >= 3:
		return 0, refuse(CodeHeartbeatMissed, "nothing was heard for %s", silence.Round(time.Millisecond))
	case missed == 0:
		b.asked = 0
	case missed > b.asked:
		b.asked = missed
		s.beat = true
	}
	if s.beat || now-b.sent >= s.heartbeat {
		s.beat, b.sent = true, now
	}
	return min(b.sent+s.heartbeat-now, time.Duration(missed+1)*s.heartbeat-silence), nil
}

// silence is how long the peer has said nothing though it was listened to.
func (s *Session) silence(now time.Duration) time.Duration {
	if s.blocked.Load() {
		return 0
	}
	return now - time.Duration(s.heard.Load())
}

// tickConnecting repeats a HELLO that a link may have lost. On a serial line each
// third goes out in version 1: a device that knows no other takes the rest for
// noise. The caller holds mu.
func (s *Session) tickConnecting(now time.Duration) time.Duration {
	if s.info.Reliable || s.cfg.Role == Server {
		return s.cfg.HelloTimeout
	}
	b := &s.beats
	if now-b.hello >= helloRepeat {
		b.hello = now
		b.hellos++
		s.version.Store(uint32(s.cfg.Version))
		if b.hellos%3 == 0 && s.info.CharTime > 0 {
			s.version.Store(Version1)
		}
		hello := s.ourHello()
		_ = s.postLocked(CommandHello, hello.Append(nil)) // it fitted the first time
	}
	return helloRepeat
}
