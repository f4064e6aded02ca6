package udp

import (
	"net"
	"slices"
	"sync"
	"testing"
)

// relay stands between a client and a server, on loopback.
type relay struct {
	t      testing.TB
	front  *net.UDPConn // the client's side
	server *net.UDPAddr

	mu     sync.Mutex
	client net.Addr
	back   *net.UDPConn          // the server's side
	up     func([]byte) [][]byte // nil: they go on as they are
	down   func([]byte) [][]byte
	seen   [][]byte // that went up
	work   sync.WaitGroup
}

func newRelay(t testing.TB, server string) *relay {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, front: mustListen(t), server: to}
	r.rebind()
	r.work.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := r.front.ReadFrom(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.client = from
			d := slices.Clone(buf[:n])
			r.seen = append(r.seen, d)
			for _, d := range through(r.up, d) {
				_, _ = r.back.WriteTo(d, r.server)
			}
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		r.front.Close()
		r.mu.Lock()
		r.back.Close()
		r.mu.Unlock()
		r.work.Wait()
	})
	return r
}

func through(f func([]byte) [][]byte, d []byte) [][]byte {
	if f == nil {
		return [][]byte{d}
	}
	return f(d)
}

// rebind gives the client another address, as seen from the server.
func (r *relay) rebind() {
	back := mustListen(r.t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back != nil {
		r.back.Close()
	}
	r.back = back
	r.work.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, _, err := back.ReadFrom(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			for _, d := range through(r.down, slices.Clone(buf[:n])) {
				_, _ = r.front.WriteTo(d, r.client)
			}
			r.mu.Unlock()
		}
	})
}

// inject sends d to the server from the client's address.
func (r *relay) inject(d []byte) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.back.WriteTo(d, r.server); err != nil {
		r.t.Fatal(err)
	}
}

// onTheWayUp and onTheWayDown say what becomes of a datagram from now on.
func (r *relay) onTheWayUp(f func([]byte) [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up = f
}

func (r *relay) onTheWayDown(f func([]byte) [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = f
}

func (r *relay) last() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen[len(r.seen)-1])
}

func (r *relay) address() string { return r.front.LocalAddr().String() }

func mustListen(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
