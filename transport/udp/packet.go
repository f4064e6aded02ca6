package udp

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// packet is a datagram in memory, which packets lends.
type packet struct {
	next *packet // in a mailbox
	from netip.AddrPort
	to   netip.Addr // of ours; invalid where there is only one
	data []byte
	n    int
	cut  bool // it was too large, and is not all there: of no use
}

func (p *packet) bytes() []byte { return p.data[:p.n] }

// packets lends memory for the datagrams of one socket, and bounds how many
// wait in mailboxes. It may be used concurrently.
type packets struct {
	size    int
	pool    sync.Pool
	waiting atomic.Int64
	most    int64 // that wait in all mailboxes together
	each    int   // that wait in one
}

const (
	// mailboxBytes and mailboxPackets bound what waits for one reader.
	// Sixteen are enough for the slowest that reads at all.
	mailboxBytes   = 1 << 20
	mailboxPackets = 256
	// socketBytes bounds what waits for all readers of a socket.
	socketBytes = 16 << 20
)

func newPackets(size int) *packets {
	return &packets{
		size: size,
		most: int64(max(socketBytes/size, 64)),
		each: min(max(mailboxBytes/size, 16), mailboxPackets),
	}
}

func (l *packets) lend() *packet {
	if p, ok := l.pool.Get().(*packet); ok {
		return p
	}
	return &packet{data: make([]byte, l.size+1)} // one more shows that it was cut
}

func (l *packets) takeBack(p *packet) {
	p.next, p.to, p.n, p.cut = nil, netip.Addr{}, 0, false
	l.pool.Put(p)
}
