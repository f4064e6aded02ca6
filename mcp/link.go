package mcp

import (
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// Times of a link that loses frames.
const (
	resendFirst       = time.Second            // time-out before one was measured (RFC 6298, section 2.1)
	resendFirstSerial = 5 * time.Second        // on a serial line, where nobody else loses by waiting
	resendFloor       = 200 * time.Millisecond // a commit to a busy disk takes longer now and then
	resendMax         = time.Minute
	holeRepeat        = time.Second // a hole is named again after that, before an answer's time was measured
	maxHoleRepeat     = 3 * time.Second
	orphanSilence     = time.Second // a server that is silent for so long may have forgotten us
)

// prepareLink sets up what the Conn needs: datagrams hold frames, and what loses
// frames has them sent again.
func (s *Session) prepareLink() {
	if len(s.cfg.Outboxes) > 0 {
		s.outboxes = make(map[string]*Outbox, len(s.cfg.Outboxes))
	}
	for _, o := range s.cfg.Outboxes {
		s.outboxes[o.cfg.Channel] = o
	}
	if s.info.MaxMessage > 0 {
		s.conn = newDatagrams(s.conn, s.cfg.Role, s.cfg.Counters, s.orphaned)
		if s.cfg.Answers == nil { // a datagram that comes twice must not ask twice
			s.cfg.Answers = newBriefAnswers()
		}
	}
	if !s.info.Reliable {
		s.pace = newPace(s.info)
		s.overtaking = newOvertaking(s.info.CharTime > 0)
	}
}

// orphaned says whether the peer owes us an answer and is silent. If somebody
// else then says in its name that it does not know us, that may be the truth.
func (s *Session) orphaned() bool {
	silence := s.silence(s.now())
	if silence < orphanSilence {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if silence >= s.heartbeat+orphanSilence || len(s.calls) > 0 {
		return true
	}
	for _, o := range s.cfg.Outboxes {
		if o.unsettled() {
			return true
		}
	}
	return false
}

// beginLink begins anew with a peer that has introduced itself, perhaps again.
// The caller holds mu.
func (s *Session) beginLink() {
	s.waiting, s.ahead = window{}, 0
	for _, c := range s.inbound {
		for _, e := range c.early {
			s.waiting.add(e.size)
			s.ahead++
		}
	}
	if s.pace != nil {
		s.pace.begin(time.Now())
	}
}

// peerPayload is the largest payload that the peer takes and the link carries.
// The caller holds mu.
func (s *Session) peerPayload(version uint8) int {
	limit := DefaultPayload
	switch {
	case version == Version1:
		limit = MaxPayloadV1
	case s.peer.MaxPayload > 0:
		limit = min(s.peer.MaxPayload, MaxPayloadV2)
	case s.info.CharTime > 0:
		limit = DefaultPayloadSerial
	}
	if s.info.MaxMessage > 0 {
		limit = min(limit, datagramPayload(s.info))
	}
	return limit
}

// datagramPayload is the largest payload that a datagram carries.
func datagramPayload(info transport.Info) int { return max(info.MaxMessage-datagramOverhead, 0) }
