package mcp

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/mcp-edge/edge-agent/mcp"
)

// handshakeShare: one address may have a quarter of MaxHandshakes.
const handshakeShare = 4

// limits decide which connections a Server takes.
type limits struct {
	cfg *ListenConfig

	mu          sync.Mutex
	connections int
	handshakes  int // of them, whose peer has not said who it is
	addresses   map[netip.Addr]*address

	overall, perAddress, tooManyHandshakes atomic.Uint64 // refused, by the limit
}

// address counts what is connected from one address.
type address struct{ connections, handshakes int }

// ticket is the place of one connection.
type ticket struct {
	limits      *limits
	from        netip.Addr
	handshaking bool // guarded by limits.mu
}

func newLimits(cfg *ListenConfig) *limits {
	return &limits{cfg: cfg, addresses: make(map[netip.Addr]*address)}
}

// full says which limit keeps a connection out.
type full struct {
	key    string     // of the configuration
	reason *mcp.Error // for the peer
}

// admit takes a connection in, or says why not. The connection begins with a
// handshake; leave must follow.
func (l *limits) admit(remote string) (*ticket, *full) {
	from := machine(host(remote))
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.addresses[from]
	if a == nil {
		a = new(address)
	}
	share := max(l.cfg.MaxHandshakes/handshakeShare, 1)
	switch {
	case l.connections >= l.cfg.MaxConnections:
		l.overall.Add(1)
		return nil, busy("max_connections", "%d connections are all there may be", l.cfg.MaxConnections)
	case a.connections >= l.cfg.MaxConnectionsPerAddress:
		l.perAddress.Add(1)
		return nil, busy("max_connections_per_address", "%d connections are all there may be from one address", l.cfg.MaxConnectionsPerAddress)
	case l.handshakes >= l.cfg.MaxHandshakes:
		l.tooManyHandshakes.Add(1)
		return nil, busy("max_handshakes", "%d peers are connecting, and no more may at the same time", l.cfg.MaxHandshakes)
	case a.handshakes >= share:
		l.tooManyHandshakes.Add(1)
		return nil, busy("max_handshakes", "%d peers are connecting from this address, and no more may at the same time", share)
	}
	l.connections++
	l.handshakes++
	a.connections++
	a.handshakes++
	l.addresses[from] = a
	return &ticket{limits: l, from: from, handshaking: true}, nil
}

func busy(key, format string, args ...any) *full {
	return &full{key: key, reason: &mcp.Error{Code: mcp.CodeBusy, Reason: fmt.Sprintf(format, args...)}}
}

// introduced notes that the peer has said who it is.
func (t *ticket) introduced() {
	t.limits.mu.Lock()
	defer t.limits.mu.Unlock()
	t.shaken()
}

// shaken ends the handshake. The caller holds the limits' mu.
func (t *ticket) shaken() {
	if t.handshaking {
		t.handshaking = false
		t.limits.handshakes--
		t.limits.addresses[t.from].handshakes--
	}
}

// leave gives the place back.
func (t *ticket) leave() {
	l := t.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	t.shaken()
	l.connections--
	a := l.addresses[t.from]
	if a.connections--; a.connections == 0 {
		delete(l.addresses, t.from)
	}
}

func (l *limits) counts() (connections, handshakes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connections, l.handshakes
}

// host is the IP address in "10.0.0.7:1234"; none where there is no such thing.
func host(remote string) netip.Addr {
	at, _ := netip.ParseAddrPort(remote)
	return at.Addr().Unmap()
}

// machine is what counts as one address: any machine with IPv6 has the 2^64
// addresses of its network to choose from (RFC 4291, section 2.5.1).
func machine(a netip.Addr) netip.Addr {
	if !a.Is6() || a.IsLinkLocalUnicast() {
		return a
	}
	network, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return network.Masked().Addr()
}
