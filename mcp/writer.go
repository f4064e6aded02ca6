package mcp

import (
	"errors"
	"net"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// writer is what belongs to who holds the pen.
type writer struct {
	s         *Session
	buf       []byte
	positions []Position
	sure      bool   // buf finds room at the peer, even if that reads nothing now
	writes    uint64 // counted by collect
}

// write says what is due until nothing is, and puts the pen down. Once the
// session has ended it says goodbye, and keeps it.
func (s *Session) write() {
	for {
		s.pen.Store(penTaken)
		ended, err := s.collect()
		switch {
		case ended:
			s.goodbye()
			return
		case err != nil:
			s.fail(err)
		case len(s.w.buf) > 0:
			s.send()
		default:
			if s.rest() {
				return
			}
		}
	}
}

// rest puts the pen down if nothing has become due since collect.
func (s *Session) rest() bool {
	if !s.info.Reliable {
		s.armFor(s.w.tickResend(time.Now()))
	}
	return s.pen.CompareAndSwap(penTaken, penFree)
}

// collect takes everything that is due into the writer's buf.
func (s *Session) collect() (ended bool, err error) {
	w := &s.w
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return true, nil
	}
	if s.beats.idle || cap(w.buf) > 2*maxWrite {
		w.buf, w.positions = nil, nil
	}
	w.buf = append(w.buf[:0], s.control...)
	s.leaving = len(w.buf)
	s.control = s.control[:0]
	if s.beats.idle || cap(s.control) > keepControl {
		s.control = nil
	}
	head, err := s.settle()
	if err != nil {
		return false, err
	}
	if head != nil && !s.settling {
		s.settling = true
		s.running.Go(func() { s.awaitCommits(head) })
	}
	version := uint8(s.version.Load())
	w.appendAcks(version)
	said := len(w.buf)
	if s.beatAck {
		w.append(version, CommandHeartbeatAck)
	}
	if s.beat {
		w.append(version, CommandHeartbeat)
	}
	s.beat, s.beatAck = false, false
	said -= len(w.buf)
	if s.state == Open {
		if err := w.appendPublishes(version); err != nil {
			return false, err
		}
	}
	said += len(w.buf)
	s.spoke(len(w.buf), said)
	w.writes++
	w.sure = s.written-s.proven <= surelyTaken
	return false, nil
}

// spoke notes that bytes are written, and how many of them say more than that we
// live. The caller holds mu.
func (s *Session) spoke(bytes, said int) {
	if bytes == 0 {
		return
	}
	s.written += uint64(bytes)
	s.beats.sent = s.now()
	if said > 0 {
		s.beats.spoken = s.beats.sent
	}
}

func (w *writer) append(version uint8, c Command) {
	w.buf, _ = AppendFrame(w.buf, version, c, nil) // can't fail: the version is one that was received
}

// send writes buf. It takes as long as the peer's store is full; watch ends it
// if the peer falls silent, and finishWith if the session is to end.
func (s *Session) send() {
	if err := s.conn.Write(s.w.buf); err != nil {
		s.finishWith(ending{err: writeFailed(err)})
	}
}

// writeFailed keeps the class where there is one: after any other error of
// Write the connection is as good as lost.
func writeFailed(err error) error {
	if errors.Is(err, transport.ErrLost) || errors.Is(err, net.ErrClosed) {
		return err
	}
	return transport.Lost(err)
}

// awaitCommits acknowledges commits as they end, for as long as there are any.
func (s *Session) awaitCommits(head <-chan struct{}) {
	for {
		select {
		case <-head:
		case <-s.working.Done(): // goodbye waits for the others
			return
		}
		s.mu.Lock()
		next, err := s.settle()
		s.settling = next != nil
		s.mu.Unlock()
		if err != nil {
			s.fail(err)
			return
		}
		if next == nil {
			s.flush(false)
			return
		}
		s.flush(false)
		head = next
	}
}

// goodbye acknowledges what still becomes safe, tells the peer why, gives it a
// moment to hang up, and closes the Conn.
func (s *Session) goodbye() {
	defer s.happens(&s.parted)
	defer func() { _ = s.conn.Close() }()
	s.mu.Lock()
	e := *s.end
	s.state = Closing
	s.opened.happens()
	s.mu.Unlock()
	if e.tell == nil {
		return
	}
	if e.closed {
		s.drain()
	}
	if s.sayWhy(e) != nil || !e.linger {
		return
	}
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-s.wait(&s.hungUp):
	case <-timer.C:
	}
}

// sayWhy sends what was still due, and CLOSE or ERROR.
func (s *Session) sayWhy(e ending) error {
	w := &s.w
	version := uint8(s.version.Load())
	s.mu.Lock()
	w.buf, s.control = s.control, nil
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
		return err
	}
	return s.conn.Write(w.buf)
}

// drain waits for the commits under way.
func (s *Session) drain() {
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	for {
		s.mu.Lock()
		head, err := s.settle()
		s.mu.Unlock()
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
