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
	most    int64 // that wait in all mailboxes together, beside the few
	each    int   // that wait in one
	few     int   // for which every mailbox has room, whatever waits in others
}

const (
	// mailboxBytes and mailboxPackets bound what waits for one reader.
	// Sixteen are enough for the slowest that reads at all.
	mailboxBytes   = 1 << 20
	mailboxPackets = 256
	// socketBytes bounds what waits for all readers of a socket. Beside it each
	// may have fewBytes, at least a packet, however many do not read.
	socketBytes = 16 << 20
	fewBytes    = 8 << 10
	// share: a mailbox has no more than the share-th part of what is left, so
	// that dozens that are not read still leave the others enough for a burst.
	share = 16
)

func newPackets(size int) *packets {
	return &packets{
		size: size,
		most: int64(max(socketBytes/size, 64)),
		each: min(max(mailboxBytes/size, 16), mailboxPackets),
		few:  max(fewBytes/size, 1),
	}
}

// room is how many may wait in one mailbox now.
func (l *packets) room() int {
	left := (l.most - l.waiting.Load()) / share
	return max(int(min(left, int64(l.each))), l.few)
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
