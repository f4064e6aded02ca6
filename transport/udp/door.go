package udp

import (
	"hash/maphash"
	"time"

	"golang.org/x/time/rate"
)

const (
	// helloRate is how many handshakes may begin in a second, and as many again
	// of peers that have asked before. Each costs the library some 40 KB and four
	// goroutines before the address is proven, so a flood of forged ones would
	// take the time of those that are there.
	helloRate = 250
	// knockTime is for how long, at least, a peer that was not let in is known.
	// Clients repeat their ClientHello after 1 s and then 2 s (RFC 6347, section
	// 4.2.4.1).
	knockTime = 5 * time.Second
	// knocksMost bounds how many are known: 16 bytes each.
	knocksMost = 1 << 15
)

// door decides which ClientHello may begin a handshake. When too many come, it
// turns away whoever has not asked before: a client in earnest repeats its
// ClientHello, and who forges addresses as a rule does not. It remembers hashes
// only. The zero value lets nobody in.
type door struct {
	first, again *rate.Limiter
	seed         maphash.Seed
	known        [2]map[uint64]struct{} // who was turned away lately, and before that
	turned       time.Time              // when known moved on last
}

func newDoor() door {
	limiter := func() *rate.Limiter { return rate.NewLimiter(helloRate, unprovenMost) }
	return door{first: limiter(), again: limiter(), seed: maphash.MakeSeed()}
}

func (d *door) letIn(key candidateKey) bool {
	if d.first.Allow() {
		return true
	}
	now := time.Now()
	if now.Sub(d.turned) >= knockTime || len(d.known[0]) >= knocksMost {
		d.known[1], d.known[0], d.turned = d.known[0], make(map[uint64]struct{}), now
	}
	hash := maphash.Comparable(d.seed, key)
	if d.has(hash) {
		return d.again.Allow()
	}
	d.known[0][hash] = struct{}{}
	return false
}

func (d *door) has(hash uint64) bool {
	_, lately := d.known[0][hash]
	_, before := d.known[1][hash]
	return lately || before
}
