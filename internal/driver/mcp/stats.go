package mcp

import (
	"errors"
	"sync/atomic"

	"github.com/mcp-edge/edge-agent/mcp"
)

// Stats of a Server; all but Connections and Handshakes only rise.
type Stats struct {
	Connections int    // open now
	Handshakes  int    // of them, whose peer has not said who it is
	Accepted    uint64 // connections, with those refused
	Refused     uint64 // of them, at a limit: the sum of the first three Refusals
	Reconnects  uint64 // of peers that had been here
	Replaced    uint64 // sessions whose sender has connected anew

	BadFrames uint64
	Publishes uint64 // PUBLISH frames taken
	Records   uint64 // in them, without repeats
	Repeats   uint64 // records that were there already
	SetBacks  uint64 // channels whose sender published again what it had just been told is safe
	Holes     uint64 // PUBLISH frames refused because something before them is missing
	Lost      uint64 // best-effort records that never came
	Foreign   uint64 // datagrams without their session's cookie

	Challenges uint64 // datagrams from addresses that had not proven themselves, answered with a cookie
	Unproven   uint64 // others from such addresses, not answered

	Refusals Refusals
}

// Refusals count what was refused, by the reason.
type Refusals struct {
	Connections      uint64 // beyond MaxConnections
	PerAddress       uint64 // connections beyond MaxConnectionsPerAddress
	Handshakes       uint64 // connections beyond MaxHandshakes, or an address's share of them
	HelloTimeouts    uint64 // peers that did not say who they are in time
	FrameTimeouts    uint64 // frames that were begun and not finished in time
	HeartbeatsMissed uint64 // peers that have fallen silent
	WindowExceeded   uint64 // peers that sent more than they may
	BufferExceeded   uint64 // frames for which there was no room, because the peer does not read
	Requests         uint64 // answered with "busy"
	RateSlowed       uint64 // PUBLISH frames that had to wait, as their device was too fast
	RateExceeded     uint64 // sessions that ended over it
	Unauthorized     uint64 // peers that did not prove who they are
	TokenExpired     uint64 // sessions refused or ended because a token's time was over
	NotAllowed       uint64 // peers that spoke for others, or without the role
	Handshake        uint64 // connections whose TLS or DTLS handshake failed
	HandshakesFailed uint64 // connections that ended before their peer said who it is, for none of these reasons: it hung up
	BadPayloads      uint64 // sessions that ended over a frame that can't be read
	OutOfPlace       uint64 // sessions that ended over a command that does not belong there
}

// endings count the sessions that ended for a reason of ours, by its code.
type endings [mcp.CodeRateExceeded + 1]atomic.Uint64

func (n *endings) count(err error) {
	var e *mcp.Error
	switch {
	case errors.Is(err, mcp.ErrPayload):
		n[mcp.CodeBadPayload].Add(1)
	case errors.As(err, &e) && !e.Remote && int64(e.Code) < int64(len(n)):
		n[e.Code].Add(1)
	}
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	connections, handshakes := s.limits.counts()
	gate := s.gate.Stats()
	stats := Stats{
		Connections: connections, Handshakes: handshakes, Accepted: s.accepted.Load(),
		Reconnects: s.peers.reconnects.Load(), Replaced: s.ended[mcp.CodeReplaced].Load(),
		BadFrames: s.counters.BadFrames.Load(), Publishes: s.counters.Publishes.Load(),
		Records: s.counters.Records.Load(), Repeats: s.counters.Repeats.Load(), SetBacks: s.counters.SetBacks.Load(), Holes: s.counters.Holes.Load(),
		Lost: s.counters.Lost.Load(), Foreign: s.counters.Foreign.Load(),
		Challenges: gate.Challenges, Unproven: gate.Refusals,
		Refusals: Refusals{
			Connections: s.limits.overall.Load(), PerAddress: s.limits.perAddress.Load(), Handshakes: s.limits.tooManyHandshakes.Load(),
			HelloTimeouts: s.counters.HelloTimeouts.Load(), FrameTimeouts: s.counters.FrameTimeouts.Load(),
			HeartbeatsMissed: s.counters.HeartbeatsMissed.Load(), WindowExceeded: s.counters.WindowExceeded.Load(),
			BufferExceeded: s.counters.BufferExceeded.Load(), Requests: s.counters.RequestsRefused.Load(),
			RateSlowed: s.rateSlowed.Load(), RateExceeded: s.ended[mcp.CodeRateExceeded].Load(),
			Unauthorized: s.ended[mcp.CodeUnauthorized].Load(), TokenExpired: s.ended[mcp.CodeTokenExpired].Load(),
			NotAllowed: s.ended[mcp.CodeNotAllowed].Load(), Handshake: s.peers.handshakes.Load(), HandshakesFailed: s.peers.handshakesFailed.Load(),
			BadPayloads: s.ended[mcp.CodeBadPayload].Load(),
			OutOfPlace:  s.ended[mcp.CodeUnexpected].Load() + s.ended[mcp.CodeHelloExpected].Load() + s.ended[mcp.CodeUnknownCommand].Load(),
		},
	}
	r := &stats.Refusals
	stats.Refused = r.Connections + r.PerAddress + r.Handshakes
	return stats
}
