package mcp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Gate proves the addresses of peers that speak over datagrams before anything
// is kept for them. Who does not say HELLO with the right cookie is answered
// with that cookie, and with no more bytes than came; only who has received the
// answer, and so sits at the address that it went to, can say HELLO with it.
//
// That goes for every datagram that begins like a frame: a client whose session
// was lost with the process that held it learns so. Noise is not answered, and
// neither is ERROR or CLOSE: two gates would answer each other for ever.
//
// A cookie is a keyed hash of address and port, so that a flood of HELLOs from
// invented addresses costs no memory. Its key changes each minute; the one
// before is still accepted, so that a cookie lives for one minute at least.
//
// All methods may be called concurrently.
type Gate struct {
	challenges, refusals atomic.Uint64

	mu      sync.Mutex
	secrets [2]secret // the present one, and the one before
	since   time.Time // when the present one was drawn
}

type secret [sha256.Size]byte

// secretTime is how long a secret makes cookies. A client that is challenged
// says HELLO again within a round trip.
const secretTime = time.Minute

// NewGate makes a Gate with secrets of its own: cookies of another Gate, or of
// the one before a restart, mean nothing to it.
func NewGate() *Gate {
	return &Gate{secrets: [2]secret{newSecret(), newSecret()}, since: time.Now()}
}

func newSecret() (s secret) {
	_, _ = rand.Read(s[:]) // never fails since Go 1.24
	return s
}

// GateStats counts what a Gate has decided; the numbers only rise.
type GateStats struct {
	Challenges uint64 // datagrams answered with a cookie
	Refusals   uint64 // others, not answered
}

// Stats counts since the Gate was made.
func (g *Gate) Stats() GateStats {
	return GateStats{Challenges: g.challenges.Load(), Refusals: g.refusals.Load()}
}

// Check decides about a datagram from an address without a session. If admit is
// true, it is a HELLO with the right cookie: it opens a session, and the cookie
// is the session's. Else reply, unless it is nil, is to be sent to remote; it is
// not longer than the datagram. The datagram is not kept.
func (g *Gate) Check(remote netip.AddrPort, datagram []byte) (reply []byte, admit bool) {
	version, ok := addressed(datagram)
	if !ok {
		g.refusals.Add(1)
		return nil, false
	}
	secrets := g.current(time.Now())
	good := secrets[0].cookie(remote)
	if cookie, _, ok := parseLoneHello(datagram); ok &&
		(sameCookie(cookie, good) || sameCookie(cookie, secrets[1].cookie(remote))) {
		return nil, true
	}
	if reply = appendChallenge(nil, good, version); len(reply) > len(datagram) {
		g.refusals.Add(1)
		return nil, false
	}
	g.challenges.Add(1)
	return reply, false
}

// addressed says whether a datagram may be answered, and in which version: its
// first frame is whole, as far as the header tells, and ends no session.
func addressed(datagram []byte) (version uint8, ok bool) {
	if len(datagram) < cookieSize {
		return 0, false
	}
	frames := datagram[cookieSize:]
	size, err := frameSize(frames, MaxPayloadV2)
	if err != nil || size == 0 || size > len(frames) {
		return 0, false
	}
	c := Command(frames[3])
	return frames[2], c != CommandError && c != CommandClose
}

// current returns the secrets that count now.
func (g *Gate) current(now time.Time) [2]secret {
	g.mu.Lock()
	defer g.mu.Unlock()
	age := now.Sub(g.since)
	if age >= secretTime {
		before := g.secrets[0]
		if age >= 2*secretTime {
			before = newSecret()
		}
		g.secrets, g.since = [2]secret{newSecret(), before}, now
	}
	return g.secrets
}

// cookie is HMAC-SHA256 (RFC 2104) over address and port, cut to 64 bits. It is
// never 0, which means that there is none.
func (s *secret) cookie(remote netip.AddrPort) uint64 {
	mac := hmac.New(sha256.New, s[:])
	address := remote.Addr().Unmap()
	b := address.As16()
	mac.Write(binary.BigEndian.AppendUint16(b[:], remote.Port()))
	mac.Write([]byte(address.Zone()))
	return max(binary.BigEndian.Uint64(mac.Sum(nil)), 1)
}

// sameCookie takes as long for a good guess as for a bad one.
func sameCookie(a, b uint64) bool {
	var x, y [cookieSize]byte
	binary.BigEndian.PutUint64(x[:], a)
	binary.BigEndian.PutUint64(y[:], b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// parseLoneHello wants a datagram that holds a well-formed HELLO and nothing else.
func parseLoneHello(datagram []byte) (cookie uint64, f Frame, ok bool) {
	if len(datagram) < cookieSize {
		return 0, Frame{}, false
	}
	f, err := ParseFrame(datagram[cookieSize:])
	if err != nil || f.Command != CommandHello {
		return 0, Frame{}, false
	}
	var hello Hello
	if hello.Unmarshal(f.Payload) != nil {
		return 0, Frame{}, false
	}
	return binary.BigEndian.Uint64(datagram), f, true
}

// appendChallenge appends the datagram that tells a peer its cookie: ERROR
// "hello expected", in the version that it spoke.
func appendChallenge(b []byte, cookie uint64, version uint8) []byte {
	b = binary.BigEndian.AppendUint64(b, cookie)
	b, _ = AppendError(b, version, &Error{Code: CodeHelloExpected}) // can't fail: the version was received
	return b
}
