package udp

import (
	"bytes"
	"container/list"
	"crypto/rand"
	"errors"
	"net/netip"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

const (
	// unprovenMost bounds the handshakes of addresses that may be forged.
	unprovenMost = 256
	// aliveMost bounds them together with those that were dropped and whose
	// goroutines have not ended, and with those that wait for Accept.
	aliveMost = 2 * unprovenMost
	// unprovenTime is how long one of them may take to bring back its cookie.
	unprovenTime = 10 * time.Second
)

// candidate is a DTLS session of a Listener, from its first ClientHello on:
// unproven until the cookie has come back, then waiting until its Conn is used,
// then under way. Listener.mu guards it.
type candidate struct {
	listener *Listener
	session  *session
	conn     *conn
	records  *mailbox
	remote   netip.AddrPort // where the peer is now
	source   source         // from where it is answered
	ids      []cid

	stage  stage
	grown  bool // it was under way once
	key    candidateKey
	cookie []byte // that we have asked for
	held   *packet
	place  *list.Element
	expiry *time.Timer
}

type stage int

const (
	unproven stage = iota
	waiting
	underWay
	released
)

var _ lower = (*candidate)(nil)

// nursery holds the candidates that are not under way. Listener.mu guards it.
type nursery struct {
	all      map[candidateKey]*candidate
	unproven *list.List // the oldest first
	alive    int        // candidates whose goroutines run and that are not under way
	door     door
}

// candidateKey: who forges a peer's address does not know its random bytes, and
// so has a candidate of his own.
type candidateKey struct {
	remote netip.AddrPort
	random [helloRandom]byte
}

func newNursery() nursery {
	return nursery{all: make(map[candidateKey]*candidate), unproven: list.New(), door: newDoor()}
}

// greet answers a ClientHello. done is false when it belongs to a session that
// is under way.
func (l *Listener) greet(p *packet, h hello) (taken, done bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := candidateKey{p.from, h.random}
	c := l.nursery.all[key]
	switch first := len(h.cookie) == 0; {
	case c != nil && c.stage == waiting:
		return false, true // a repetition: the first is held, and nothing has been answered
	case first && c != nil:
		return c.records.put(p), true
	case first:
		return l.conceive(key, p), true
	case c != nil && bytes.Equal(c.cookie, h.cookie):
		return l.prove(c, p), true
	}
	return false, false
}

// conceive begins a handshake for an address that may be forged.
func (l *Listener) conceive(key candidateKey, p *packet) bool {
	if l.nursery.alive >= aliveMost || !l.nursery.door.letIn(key) {
		l.unproven.Add(1)
		return false
	}
	if l.nursery.unproven.Len() >= unprovenMost {
		l.drop(l.nursery.unproven.Front().Value.(*candidate))
	}
	setup, err := newSettings(l.config, "")
	if err == nil {
		err = setup.check()
	}
	if err != nil || l.closing {
		l.strange.Add(1)
		return false
	}
	c := &candidate{
		listener: l, records: newMailbox(l.socket.packets),
		remote: p.from, key: key, source: leaveFrom(p.to), conn: l.newConn(p),
	}
	c.session, err = newSession(setup.server(c.newID), c, c.records, c.conn.in)
	if err != nil {
		l.strange.Add(1)
		return false
	}
	c.session.starting = c.start
	c.conn.carrier = c.session
	l.conns++
	l.nursery.all[key] = c
	c.place = l.nursery.unproven.PushBack(c)
	c.expiry = time.AfterFunc(unprovenTime, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.drop(c)
	})
	c.records.put(p)
	l.nursery.alive++
	go c.run()
	return true
}

// drop forgets a candidate that is unproven. It is called with mu.
func (l *Listener) drop(c *candidate) {
	if c.stage != unproven {
		return
	}
	l.unproven.Add(1)
	c.release()
	c.session.stop()
}

// dropUnproven is called with mu.
func (l *Listener) dropUnproven() {
	for e := l.nursery.unproven.Front(); e != nil; e = l.nursery.unproven.Front() {
		l.drop(e.Value.(*candidate))
	}
}

// run ends with the session. A Conn that nobody has heard of ends with it.
func (c *candidate) run() {
	c.session.run()
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(c)
	if !c.grown {
		l.nursery.alive--
	}
}

// prove hands the Conn to Accept and keeps the ClientHello for when it is used:
// what follows costs signatures. It is called with mu.
func (l *Listener) prove(c *candidate, p *packet) bool {
	if !l.offer(c.conn) {
		return false // the peer will say it again
	}
	c.stage, c.held = waiting, p
	c.expiry.Stop()
	l.nursery.unproven.Remove(c.place)
	return true
}

// start goes on with the handshake, and takes the address from the session that
// had it: the peer has begun anew (RFC 6347, section 4.2.8). One that has a
// connection ID may as well be somewhere else by now, and is left alone.
func (c *candidate) start() {
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.stage != waiting {
		return
	}
	c.stage, c.grown = underWay, true
	l.nursery.alive--
	delete(l.nursery.all, c.key)
	if old := l.routes[c.remote]; old.box != nil && !old.movable {
		old.box.end(transport.Lost(errors.New("the other side has begun a new session")))
	}
	l.routes[c.remote] = route{box: c.records}
	if !c.records.put(c.held) {
		l.socket.packets.takeBack(c.held)
	}
	c.held = nil
}

// newID is called by the library when the peer understands connection IDs.
func (c *candidate) newID() []byte {
	var id cid
	_, _ = rand.Read(id[:]) // it never fails
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.stage == underWay {
		c.ids = append(c.ids, id)
		l.ids[id] = c.records
		l.routes[c.remote] = route{c.records, true}
	}
	return id[:]
}

// peer implements lower.
func (c *candidate) peer() netip.AddrPort { return c.remote }

// sendTo implements lower. The library gives another address once a record from
// there has proven to be the peer's, and newer than all others.
func (c *candidate) sendTo(record []byte, to netip.AddrPort) error {
	l := c.listener
	l.mu.Lock()
	switch {
	case c.stage == unproven:
		if cookie, ok := parseVerifyRequest(record); ok {
			c.cookie = bytes.Clone(cookie)
		}
	case c.stage == underWay && to != c.remote:
		c.leave()
		c.remote = to
		l.routes[to] = route{c.records, true}
	}
	l.mu.Unlock()
	return l.socket.send(record, to, c.source)
}

// close implements lower.
func (c *candidate) close() {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.release()
}

// release takes the session out of the Listener. It is called with mu.
func (c *candidate) release() {
	l := c.listener
	switch c.stage {
	case released:
		return
	case unproven:
		c.expiry.Stop()
		l.nursery.unproven.Remove(c.place)
		delete(l.nursery.all, c.key)
	case waiting:
		delete(l.nursery.all, c.key)
		l.socket.packets.takeBack(c.held)
	}
	c.leave()
	for _, id := range c.ids {
		delete(l.ids, id)
	}
	c.stage = released
	l.conns--
	l.closeIfLast()
}

// leave gives up the address, unless another has taken it.
func (c *candidate) leave() {
	if routes := c.listener.routes; routes[c.remote].box == c.records {
		delete(routes, c.remote)
	}
}
