package quic

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	quicgo "github.com/quic-go/quic-go"
)

// A handshake costs the one who is asked more than the one who asks, and an
// address may be a lie. So their number is bounded.
const (
	// manyHandshakes under way make the Listener ask each new client to prove
	// its address, which takes one round trip more (Retry, RFC 9000, section 8.1).
	manyHandshakes = 32
	// maxHandshakes is how many there may be, and maxHandshakesEach how many
	// from one address; with IPv6 from one /64 network, of which a single machine
	// can take any address. A plant behind one router may come back all at once;
	// who is refused comes again.
	maxHandshakes     = 256
	maxHandshakesEach = 64
)

// Stats count what a Listener did with clients before Accept gave them out.
type Stats struct {
	Refused    uint64 // too many handshakes were under way, in all or from their address
	Failed     uint64 // handshakes that came to nothing: another ALPN, no answer, no room in the queue for Accept
	Challenged uint64 // first packets that were answered with Retry; a forged address never comes back
}

// handshakes counts those under way: a connection counts until its handshake is
// complete and its stream there. The zero value is ready.
type handshakes struct {
	refused, failed, challenged atomic.Uint64

	mu   sync.Mutex
	all  int
	from map[netip.Prefix]int
}

// handshake is one of them.
type handshake struct {
	accepted atomic.Bool // what becomes of it is its Conn's to say
	end      func()      // may be called often
}

// Stats may be called by anyone at any time.
func (l *Listener) Stats() Stats {
	h := &l.handshakes
	return Stats{Refused: h.refused.Load(), Failed: h.failed.Load(), Challenged: h.challenged.Load()}
}

// challenge says whether a new client is to prove its address.
func (h *handshakes) challenge() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all < manyHandshakes {
		return false
	}
	h.challenged.Add(1)
	return true
}

var errBusy = errors.New("too many handshakes are under way")

// handshakeKey finds the handshake in its connection's context.
type handshakeKey struct{}

// begin counts a new connection, or refuses it. ctx ends with the connection.
func (h *handshakes) begin(ctx context.Context, client *quicgo.ClientInfo) (context.Context, error) {
	from := network(client.RemoteAddr)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= maxHandshakes || h.from[from] >= maxHandshakesEach {
		h.refused.Add(1)
		return nil, errBusy
	}
	if h.from == nil {
		h.from = make(map[netip.Prefix]int)
	}
	h.all++
	h.from[from]++
	one := &handshake{end: sync.OnceFunc(func() { h.end(from) })}
	context.AfterFunc(ctx, func() {
		if !one.accepted.Load() {
			h.failed.Add(1)
		}
		one.end()
	})
	return context.WithValue(ctx, handshakeKey{}, one), nil
}

func (h *handshakes) end(from netip.Prefix) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.from[from]--; h.from[from] == 0 {
		delete(h.from, from)
	}
}

// network is what one peer may have all the addresses of.
func network(a net.Addr) netip.Prefix {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip, bits := udp.AddrPort().Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // no prefix of no address
	return p
}

// handshakeOf finds that of a connection that was accepted.
func handshakeOf(c *quicgo.Conn) *handshake {
	h, _ := c.Context().Value(handshakeKey{}).(*handshake)
	return h
}
