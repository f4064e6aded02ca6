package udp

import (
	"net/netip"

	"github.com/mcp-edge/edge-agent/transport"
)

// Config is the udp table of a [[link]] or a [[listen]].
type Config struct {
	// MaxDatagram is the largest datagram that is sent or taken, without the
	// headers of IP and UDP. Datagrams are never fragmented: one that is too
	// large for a network on its way does not arrive. The default is what every
	// IPv6 network has to carry, and close to every IPv4 one does. With DTLS at
	// most 8192 are used, and each message is up to 46 bytes shorter.
	MaxDatagram int `toml:"max_datagram" unit:"bytes" default:"1232" min:"576" max:"65507"`

	// TLS makes the Conns DTLS 1.2; nil: plain. It takes the part of a
	// tls.Config that DTLS has: certificates and what verifies them. The
	// versions, the cipher suites and the protocols in it mean nothing here.
	TLS transport.TLS
	// Gate decides which addresses a plain Listener makes a Conn for; nil: all.
	Gate Gate
}

// Gate looks at a datagram from an address that has no Conn. admit makes a Conn
// whose first message that datagram is. reply is sent if it is not longer than
// the datagram: an address may be forged, and the one that it really belongs to
// must not get more than the forger has spent. It is empty for none.
//
// The Listener keeps nothing of an address that was not admitted. Gate is called
// for one datagram after the other and must not block; datagram is valid until
// it returns.
type Gate func(remote netip.AddrPort, datagram []byte) (reply []byte, admit bool)

// defaultDatagram is IPv6's smallest MTU, 1280 (RFC 8200, section 5), without
// the headers of IPv6 and UDP.
const defaultDatagram = 1280 - 40 - 8

const (
	// secureDatagram is the largest that the DTLS library reads.
	secureDatagram = 8192
	// secureOverhead is what DTLS adds to a message: the record's header, the
	// listener's connection ID, the content type behind the message (RFC 9146,
	// section 5), the nonce and the tag (RFC 5288, section 3).
	secureOverhead = 13 + cidSize + 1 + 8 + 16
)

// withDefaults is for who makes a Config in Go.
func (c Config) withDefaults() Config {
	if c.MaxDatagram == 0 {
		c.MaxDatagram = defaultDatagram
	}
	if c.TLS != nil {
		c.MaxDatagram = min(c.MaxDatagram, secureDatagram)
	}
	return c
}

// maxMessage is Info's.
func (c Config) maxMessage() int {
	if c.TLS != nil {
		return c.MaxDatagram - secureOverhead
	}
	return c.MaxDatagram
}
