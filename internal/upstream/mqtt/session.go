package mqtt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	paholog "github.com/eclipse/paho.golang/paho/log"
	pahosession "github.com/eclipse/paho.golang/paho/session"

	"github.com/mcp-edge/edge-agent/internal/upstream"
)

var (
	errClosed = errors.New("mqtt upstream: closed")
	errNoQoS1 = errors.New("the broker takes no QoS 1, so it can't confirm that a message is safe: allow QoS 1 at the broker")
	errIDs    = errors.New("packet identifiers belong to the upstream's own messages")
)

// session is the client's half of the MQTT session, in place of paho's own.
//
// paho's publishes one message and waits, or forgets to tell the outcome; and
// it keeps messages, to send them again by itself. Here the queue is the memory:
// a session lives as long as its connection, keeps no payload, and tells each
// delivery which of its records have been acknowledged. paho connects, reads,
// pings and reports the loss; what is lost with a connection is sent again by
// the delivery it belongs to, and by nobody else.
//
// One lock guards everything, and one condition tells of every change: the
// goroutines in Send and the one in write look at the state and go on or wait.
type session struct {
	endpoint   string
	window     int
	ackTimeout time.Duration
	log        *slog.Logger

	mu      sync.Mutex
	changed sync.Cond
	link    *link // nil: not connected
	closed  bool
	reason  string    // why there is no link
	holding *delivery // waits for a broker that is there and does not take its messages for now
	heldFor string    // why
	retry   backoff

	// suspects counts the messages that were in flight when a broker closed the
	// connection as if one of them were to blame. They go one at a time, so that
	// the next such end shows which.
	suspects int
}

var _ pahosession.SessionManager = (*session)(nil)

func newSession(endpoint string, cfg Config, log *slog.Logger) *session {
	s := &session{endpoint: endpoint, window: cfg.Window, ackTimeout: cfg.AckTimeout, log: log, reason: "not connected yet"}
	s.changed.L = &s.mu
	return s
}

// ConAckReceived begins a link. Nothing is sent again here.
func (s *session) ConAckReceived(w io.Writer, _ *packets.Connect, ca *packets.Connack) error {
	if p := ca.Properties; p != nil && p.MaximumQOS != nil && *p.MaximumQOS < 1 {
		return errNoQoS1
	}
	conn, ok := w.(io.WriteCloser)
	if !ok {
		return errors.New("the connection can't be closed") // dial's can
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = newLink(conn, s.window, ca)
	s.watch(s.link)
	s.reason = ""
	s.log.Info("connected to the broker", "endpoint", s.endpoint, "window", s.link.limit)
	s.changed.Broadcast()
	return nil
}

// ConnectionLost ends the link; d is the broker's DISCONNECT, if it sent one.
func (s *session) ConnectionLost(d *packets.Disconnect) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return nil
	}
	reason := lostSomehow
	if d != nil {
		text := ""
		if d.Properties != nil {
			text = d.Properties.ReasonString
		}
		reason = "the broker closed the connection: " + reasonText(d.ReasonCode, text)
		if blamesMessage(d.ReasonCode) {
			s.blame(reason)
		}
	}
	s.drop(s.link, reason)
	return nil
}

// blame finds the message for which the broker closed the connection: the one in
// flight, if they went one at a time already, or else one of those in flight.
func (s *session) blame(reason string) {
	inFlight := s.link.inFlight
	if s.suspects > 0 && len(inFlight) == 1 {
		for _, m := range inFlight {
			m.delivery.refuse(m.index, reason)
		}
		s.suspects = 0
		return
	}
	s.suspects = len(inFlight)
}

// drop ends l, unless that has happened already.
func (s *session) drop(l *link, reason string) {
	if s.link != l {
		return
	}
	s.link = nil
	l.watch.Stop()
	_ = l.conn.Close() // paho notices and connects again
	if time.Since(l.since) > time.Minute {
		s.retry.reset()
	}
	s.explain(reason)
	s.changed.Broadcast()
}

// lostSomehow stands until lost brings the cause.
const lostSomehow = "the connection was lost"

// explain says why there is no link; the log hears of it only when it is news.
func (s *session) explain(reason string) {
	if s.link != nil || s.closed || s.reason == reason {
		return
	}
	s.reason = reason
	if reason == lostSomehow {
		return
	}
	s.log.Warn("no connection to the broker, trying again until there is", "endpoint", s.endpoint, "reason", reason)
}

// failed hears why paho could not connect.
func (s *session) failed(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.explain(reason)
}

// lost hears from paho why it gave up a connection; a cause that we found
// ourselves says more.
func (s *session) lost(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.reason != lostSomehow:
	case errors.Is(err, io.EOF):
		s.explain("the broker closed the connection")
	default:
		s.explain(lostSomehow + ": " + err.Error())
	}
}

// pause is how long to wait before the next attempt to connect.
func (s *session) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retry.next()
}

// watch drops l once a message has waited too long for its PUBACK: a broker may
// stop working and keep its connections open.
func (s *session) watch(l *link) {
	l.watch = time.AfterFunc(s.ackTimeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.link != l {
			return
		}
		left := s.ackTimeout
		if sent, ok := l.oldest(); ok {
			left -= time.Since(sent)
		}
		if left <= 0 {
			s.drop(l, fmt.Sprintf("the broker has not acknowledged a message for %v", s.ackTimeout))
			return
		}
		l.watch.Reset(left)
	})
}

// PacketReceived takes the PUBACKs. Every other packet with an identifier would
// belong to a subscription or to QoS 2, and there are none.
func (s *session) PacketReceived(p *packets.ControlPacket, _ chan<- *packets.Publish) error {
	ack, ok := p.Content.(*packets.Puback)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return nil
	}
	m, ok := s.link.inFlight[ack.PacketID]
	if !ok {
		return nil
	}
	delete(s.link.inFlight, ack.PacketID)
	s.retry.reset()
	s.suspects = max(0, s.suspects-1)
	m.delivery.answered(m.index, ack)
	if m.delivery.wants() || s.link.full && s.link.room(s.limit()) {
		s.changed.Broadcast()
	}
	return nil
}

// limit is how many messages may be in flight now.
func (s *session) limit() int {
	if s.suspects > 0 {
		return 1
	}
	return s.link.limit
}

// write writes what the deliveries have put into a link, as much as there is at
// once, until the session is closed. Only it may block in the connection, so
// that a Send always hears its context.
func (s *session) write() {
	s.mu.Lock()
	defer s.mu.Unlock()
	spare := new(bytes.Buffer)
	for !s.closed {
		l := s.link
		if l == nil || l.out.Len() == 0 {
			s.changed.Wait()
			continue
		}
		full := l.out
		l.out = spare
		s.changed.Broadcast() // there is room again
		s.mu.Unlock()
		err := writeAll(l.conn, full.Bytes())
		s.mu.Lock()
		if err != nil {
			s.drop(l, "writing failed: "+err.Error())
		}
		full.Reset()
		spare = full
	}
}

// writeAll keeps paho's own packets (a PINGREQ, the DISCONNECT) out of the midst.
func writeAll(w io.Writer, b []byte) error {
	if l, ok := w.(sync.Locker); ok {
		l.Lock()
		defer l.Unlock()
	}
	_, err := w.Write(b)
	return err
}

// close ends write and every Send.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.reason = "stopped"
	s.changed.Broadcast()
}

func (s *session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

func (s *session) status() upstream.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return upstream.Status{
		Connected: s.link != nil && !s.closed && s.heldFor == "",
		Reason:    cmp.Or(s.reason, s.heldFor), Endpoint: s.endpoint,
	}
}

// AddToSession is how paho would send by itself.
func (s *session) AddToSession(context.Context, pahosession.Packet, chan<- packets.ControlPacket) error {
	return errIDs
}

// Ack is for messages received, and there is no subscription.
func (s *session) Ack(*packets.Publish) error { return nil }

// Close is for a session that paho made itself.
func (s *session) Close() error { return nil }

// SetErrorLogger and SetDebugLogger: the session has a logger.
func (s *session) SetErrorLogger(paholog.Logger) {}

func (s *session) SetDebugLogger(paholog.Logger) {}
