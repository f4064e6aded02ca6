package mcp

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// writer is what the writing goroutine keeps to itself.
type writer struct {
	s         *Session
	buf       []byte
	positions []Position
	lastSent  time.Time
	asked     int // HEARTBEATs sent since the peer was last heard
	lastHello time.Time
	hellos    int // said again

	// On a line that loses frames:
	acked    uint64        // how much is acknowledged
	waiting  bool          // for an acknowledgement
	since    time.Time     // when that wait began, or the last progress in it
	resendIn time.Duration // after since
}

// write says what is to be said until the session ends, and says goodbye.
func (s *Session) write(ctx context.Context, readerDone <-chan struct{}) {
	now := time.Now()
	w := &writer{s: s, lastSent: now, lastHello: now}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !s.ended() {
		head, err := w.step()
		if err != nil {
			s.fail(err)
			continue
		}
		if len(w.buf) > 0 {
			if err := w.flush(); err != nil {
				s.finishWith(ending{err: err})
			}
			continue
		}
		timer.Reset(w.tick())
		select {
		case <-s.wakeup:
		case <-head:
		case <-timer.C:
		case <-ctx.Done():
			gone := &Error{Code: CodeGoingAway}
			s.finishWith(ending{tell: gone, closed: true, linger: true})
		}
	}
	w.goodbye(readerDone)
}

// step collects into buf everything that is due. head is closed when the oldest
// PUBLISH under way is safe.
func (w *writer) step() (head <-chan struct{}, err error) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	w.buf = append(w.buf[:0], s.control...)
	s.control = s.control[:0]
	if cap(s.control) > keepBuffer {
		s.control = nil
	}
	if head, err = s.settle(); err != nil {
		return nil, err
	}
	version := uint8(s.version.Load())
	w.appendAcks(version)
	if s.beatAck {
		w.append(version, CommandHeartbeatAck)
		s.beatAck = false
	}
	if s.beat {
		w.append(version, CommandHeartbeat)
		s.beat = false
	}
	if s.state == Open {
		err = w.appendPublishes(version)
	}
	return head, err
}

func (w *writer) append(version uint8, c Command) {
	w.buf, _ = AppendFrame(w.buf, version, c, nil) // can't fail: the version is one that was received
}

// flush writes buf. It takes as long as the peer's store is full; watch ends it
// if the peer falls silent, and finishWith if the session is to end.
func (w *writer) flush() error {
	w.s.guardWrite(true)
	err := w.s.conn.Write(w.buf)
	w.s.guardWrite(false)
	if err != nil {
		return writeFailed(err)
	}
	w.lastSent = time.Now()
	if cap(w.buf) > 2*maxWrite {
		w.buf = nil // a large response must not stay with an idle session
	}
	return nil
}

// writeFailed keeps the class where there is one: after any other error of
// Write the connection is as good as lost.
func writeFailed(err error) error {
	if errors.Is(err, transport.ErrLost) || errors.Is(err, net.ErrClosed) {
		return err
	}
	return transport.Lost(err)
}

// tick does what time demands, and says when to look again.
func (w *writer) tick() time.Duration {
	s := w.s
	now := time.Now()
	s.mu.Lock()
	state, interval := s.state, s.heartbeat
	s.mu.Unlock()
	if state == Connecting {
		return w.tickConnecting(now)
	}
	silence := s.silence(now)
	missed := int(silence / interval)
	beat := now.Sub(w.lastSent) >= interval
	switch {
	case missed >= 3:
		s.missed(silence)
		return 0
	case missed == 0:
		w.asked = 0
	case missed > w.asked:
		w.asked = missed
		beat = true
	}
	if beat {
		s.mu.Lock()
		s.beat = true
		s.mu.Unlock()
		return 0
	}
	next := min(w.lastSent.Add(interval).Sub(now), time.Duration(missed+1)*interval-silence)
	return max(min(next, w.tickResend(now)), time.Millisecond)
}

// silence is how long the peer has said nothing though it was listened to.
func (s *Session) silence(now time.Time) time.Duration {
	if s.blocked.Load() {
		return 0
	}
	return now.Sub(s.start) - time.Duration(s.heard.Load())
}

// missed ends the session after three heartbeats.
func (s *Session) missed(silence time.Duration) {
	s.fail(refuse(CodeHeartbeatMissed, "nothing was heard for %s", silence.Round(time.Millisecond)))
}

// guardWrite has watch look after a Write, in which the writer can't.
func (s *Session) guardWrite(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = on
	switch {
	case !on:
		s.watchdog.Stop()
	case s.watchdog == nil:
		s.watchdog = time.AfterFunc(3*s.heartbeat, s.watch)
	default:
		s.watchdog.Reset(3 * s.heartbeat)
	}
}

// watch ends a Write to a peer that has missed three heartbeats.
func (s *Session) watch() {
	silence := s.silence(time.Now())
	s.mu.Lock()
	left := 3*s.heartbeat - silence
	if s.writing && left > 0 {
		s.watchdog.Reset(left)
	}
	dead := s.writing && left <= 0
	s.mu.Unlock()
	if dead {
		s.missed(silence)
	}
}

// tickConnecting repeats a HELLO that a line may have lost. Each third goes out
// in version 1: a device that knows no other takes the rest for noise.
func (w *writer) tickConnecting(now time.Time) time.Duration {
	s := w.s
	if s.info.Reliable || s.cfg.Role == Server {
		return s.cfg.HelloTimeout
	}
	if now.Sub(w.lastHello) >= helloRepeat {
		w.lastHello = now
		w.hellos++
		s.version.Store(uint32(s.cfg.Version))
		if w.hellos%3 == 0 {
			s.version.Store(Version1)
		}
		s.sayHello()
	}
	return helloRepeat
}

// goodbye acknowledges what still becomes safe, tells the peer why, and gives
// it a moment to hang up.
func (w *writer) goodbye(readerDone <-chan struct{}) {
	s := w.s
	s.mu.Lock()
	e := *s.end
	if s.state == Connecting {
		close(s.opened)
	}
	s.state = Closing
	s.mu.Unlock()
	if e.tell == nil {
		return
	}
	if e.closed {
		w.drain()
	}
	version := uint8(s.version.Load())
	s.mu.Lock()
	w.buf = append(w.buf[:0], s.control...)
	_, _ = s.settle() // a failed commit is not acknowledged, and that is all to be done now
	w.appendAcks(version)
	s.mu.Unlock()
	start := len(w.buf)
	command := CommandError
	if e.closed {
		command = CommandClose
	}
	w.buf = e.tell.appendReason(beginFrame(w.buf, version, command))
	var err error
	if w.buf, err = endFrame(w.buf, start); err != nil {
		return
	}
	if s.conn.Write(w.buf) != nil || !e.linger {
		return
	}
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-readerDone:
	case <-timer.C:
	}
}

// drain waits for the commits under way.
func (w *writer) drain() {
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	for {
		w.s.mu.Lock()
		head, err := w.s.settle()
		w.s.mu.Unlock()
		if head == nil || err != nil {
			return
		}
		select {
		case <-head:
		case <-timer.C:
			return
		}
	}
}
