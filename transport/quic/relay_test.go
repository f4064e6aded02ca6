package quic

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// relay is a router between one client and a Listener: the Listener sees the
// relay's port, which move changes, as a NAT does that has forgotten.
type relay struct {
	t      testing.TB
	server netip.AddrPort
	inside *net.UDPConn // where the client sends to

	mu      sync.Mutex
	client  netip.AddrPort
	outside *net.UDPConn
	holding bool     // what the server says waits
	held    [][]byte // it
	lose    func() bool
	running sync.WaitGroup
}

func newRelay(t testing.TB, l *Listener) *relay {
	t.Helper()
	r := &relay{t: t, server: l.socket.LocalAddr().(*net.UDPAddr).AddrPort(), inside: loopback(t), lose: func() bool { return false }}
	r.move()
	r.running.Go(r.fromClient)
	t.Cleanup(func() {
		r.inside.Close()
		r.mu.Lock()
		r.outside.Close()
		r.mu.Unlock()
		r.running.Wait()
	})
	return r
}

func loopback(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *relay) address() string { return r.inside.LocalAddr().String() }

// move takes another port towards the Listener.
func (r *relay) move() {
	next := loopback(r.t)
	r.mu.Lock()
	last := r.outside
	r.outside = next
	r.mu.Unlock()
	if last != nil {
		last.Close()
	}
	r.running.Go(func() { r.fromServer(next) })
}

// hold keeps back what the server says, until it is called with false.
func (r *relay) hold(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holding = yes
	for _, datagram := range r.held {
		_, _ = r.inside.WriteToUDPAddrPort(datagram, r.client)
	}
	r.held = nil
}

// loses makes lose decide about each datagram from now on.
func (r *relay) loses(lose func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose = lose
}

func (r *relay) fromClient() {
	buf := make([]byte, 2048)
	for {
		n, from, err := r.inside.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.client = from
		if !r.lose() {
			_, _ = r.outside.WriteToUDPAddrPort(buf[:n], r.server)
		}
		r.mu.Unlock()
	}
}

func (r *relay) fromServer(outside *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, _, err := outside.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		switch {
		case r.lose():
		case r.holding:
			r.held = append(r.held, slices.Clone(buf[:n]))
		default:
			_, _ = r.inside.WriteToUDPAddrPort(buf[:n], r.client)
		}
		r.mu.Unlock()
	}
}
