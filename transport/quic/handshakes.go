package quic

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	quicgo "github.com/quic-go/quic-go"
)

// A handshake costs the one who is asked more than the one who asks, and an
// address may be a lie. So their number is bounded.
const (
	// manyHandshakes under way make the Listener ask each new client to prove
	// its address, which takes one round trip more (Retry, RFC 9000, section 8.1).
	manyHandshakes = 32
	// maxHandshakes is how many there may be, and maxHandshakesEach how many
	// from one address. A plant behind one router may come back all at once;
	// who is refused comes again.
	maxHandshakes     = 256
	maxHandshakesEach = 64
)

// handshakes counts those under way: a connection counts until its handshake is
// complete and its stream there. The zero value is ready.
type handshakes struct {
	mu   sync.Mutex
	all  int
	from map[netip.Addr]int
}

// many says whether addresses are to be proven.
func (h *handshakes) many() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all >= manyHandshakes
}

var errBusy = errors.New("too many handshakes are under way")

// handshakeKey finds what ends a handshake in its connection's context.
type handshakeKey struct{}

// begin counts a new connection, or refuses it. ctx ends with the connection.
func (h *handshakes) begin(ctx context.Context, client *quicgo.ClientInfo) (context.Context, error) {
	var from netip.Addr
	if udp, ok := client.RemoteAddr.(*net.UDPAddr); ok {
		from = udp.AddrPort().Addr().Unmap()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= maxHandshakes || h.from[from] >= maxHandshakesEach {
		return nil, errBusy
	}
	if h.from == nil {
		h.from = make(map[netip.Addr]int)
	}
	h.all++
	h.from[from]++
	end := sync.OnceFunc(func() { h.end(from) })
	context.AfterFunc(ctx, end)
	return context.WithValue(ctx, handshakeKey{}, end), nil
}

func (h *handshakes) end(from netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.from[from]--; h.from[from] == 0 {
		delete(h.from, from)
	}
}

// handshakeOf returns what ends the handshake of c. It may be called often.
func handshakeOf(c *quicgo.Conn) func() {
	end, _ := c.Context().Value(handshakeKey{}).(func())
	return end
}
