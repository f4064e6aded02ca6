// Package quic carries messages over QUIC, version 1 (RFC 9000), which brings
// its own TLS 1.3.
//
// A Conn is the first bidirectional stream that the client opens. It goes
// before the connection's other streams, which transport.Info's Streams has:
// one for each flow of messages that shall not wait for a packet lost in
// another. Datagrams (RFC 9221) are there too.
//
// The connection belongs to no address: a client may change its own, knowingly
// or behind a router that gives it another port, and goes on. A client that
// comes back says its first message with its first packet (0-RTT).
//
// QUIC wants socket buffers of 7 MiB. The library says once on the standard log
// when the kernel allows less, unless the environment variable
// QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING is true.
package quic

import (
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// ALPN is what both ends call the protocol in the TLS handshake (RFC 7301),
// whichever driver speaks on the Conn. A peer that offers another is refused.
const ALPN = "edge-mcp"

// MaxDatagram is the largest message of Streams.Datagrams, in bytes: what fits
// the smallest packet that QUIC allows a path (1,200 bytes, RFC 9000, section
// 14) behind the longest header, with the tag of its encryption.
const MaxDatagram = 1200 - 1 - 20 - 16 - 3

const (
	// readSize is how much one read of a Conn may bring, in bytes. Of the streams
	// beside it a read borrows less, at first: there are many, and each may hold
	// what it borrowed for one byte that nothing follows.
	readSize       = 64 << 10
	readSizeBeside = 4 << 10

	// A peer that vanished without a word is noticed after a minute, also by a
	// Conn that only reads; a peer that is there answers the packets that keep
	// the connection alive.
	idleTimeout = time.Minute
	keepAlive   = 20 * time.Second

	// handshakeIdle bounds the wait for each packet of a handshake. The whole of
	// it may take twice as long.
	handshakeIdle = 5 * time.Second

	// lingerTime is how long Close waits for the peer to have read everything.
	// A packet that is lost is sent again well within it.
	lingerTime = 2 * time.Second

	// streamWindow is what a peer may have on its way to us on one stream, unread,
	// in bytes. It bounds what one stream carries in a round trip.
	streamWindow = 128 << 10

	// maxStreams that the peer may have open beside the Conn.
	maxStreams = 32

	// connectionWindow is the same on all streams together. Those beside the Conn
	// can't use it up, even if none of them is read: the Conn goes on. The two more
	// are the Conn and what awaken opens. The third on top is because quic-go tells
	// the peer of more room only when a quarter of the window has been read. So the
	// most that a connection holds unread is 34 streams of 128 KiB, 4.25 MiB.
	connectionWindow = (maxStreams + 2) * streamWindow * 4 / 3

	// controlUrgency sends the Conn's packets before those of other streams,
	// whose urgency is 3 (RFC 9218, section 4.1: 0 is the first, 7 the last).
	controlUrgency = 1
)

// pools lend what a connection reads into: its Conn, and the streams beside it.
type pools struct{ conn, beside *framed.Pool }

func newPools() pools {
	return pools{conn: framed.NewPool(readSize), beside: framed.NewPool(readSizeBeside)}
}

// config is what dialed and accepted connections have in common.
func config() *quicgo.Config {
	return &quicgo.Config{
		Versions:                       []quicgo.Version{quicgo.Version1},
		HandshakeIdleTimeout:           handshakeIdle,
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         streamWindow,
		InitialConnectionReceiveWindow: connectionWindow, // it would not grow while nothing is read
		MaxConnectionReceiveWindow:     connectionWindow,
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          maxStreams,
		EnableDatagrams:                true,
	}
}
