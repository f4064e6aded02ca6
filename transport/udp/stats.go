package udp

import "sync/atomic"

// Stats are the datagrams that a Listener has dropped, by reason.
type Stats struct {
	Refused  uint64 // the Gate did not admit their address
	Strange  uint64 // they belong to no session, and begin none
	Backlog  uint64 // they would have begun a Conn, and too many wait for Accept
	Overflow uint64 // their Conn had not read what came before
	// Unproven counts the DTLS handshakes that were dropped before their cookie
	// came back: the address was forged, or the peer has gone.
	Unproven uint64
}

type dropped struct {
	refused, strange, backlog, overflow, unproven atomic.Uint64
}

// Stats may be called by anyone at any time.
func (d *dropped) Stats() Stats {
	return Stats{
		Refused:  d.refused.Load(),
		Strange:  d.strange.Load(),
		Backlog:  d.backlog.Load(),
		Overflow: d.overflow.Load(),
		Unproven: d.unproven.Load(),
	}
}
