package e2e

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/internal/pty"
)

// What a bad link does. Streams can't lose or reorder, so of these they have the
// delays and the cuts.
const (
	loss      = 0.20
	duplicate = 0.05
	jitter    = 300 * time.Millisecond // each datagram is late by up to that, so they overtake each other
	flipEvery = 10_000                 // bytes on a serial line from one flipped bit to the next
)

// badLink is a link that can be cut.
type badLink struct {
	t       *testing.T
	address string // where its near end is: an address, or a device file
	target  string
	isCut   atomic.Bool
	running sync.WaitGroup

	mu    sync.Mutex
	dice  *rand.Rand
	conns map[io.Closer]bool // of streams, to be closed by a cut
	ended bool

	dropped, passed atomic.Int64
}

func newBadLink(t *testing.T, target string) *badLink {
	l := &badLink{t: t, target: target, dice: rand.New(rand.NewPCG(1, 2)), conns: make(map[io.Closer]bool)}
	t.Cleanup(func() {
		l.mu.Lock()
		l.ended = true
		for c := range l.conns {
			c.Close()
		}
		l.mu.Unlock()
		l.running.Wait()
	})
	return l
}

// cut interrupts the link until it is mended.
func (l *badLink) cut() {
	l.isCut.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if _, stream := c.(*net.TCPConn); stream {
			c.Close()
		}
	}
}

func (l *badLink) mend() { l.isCut.Store(false) }

func (l *badLink) chance(p float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dice.Float64() < p
}

func (l *badLink) delay() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Duration(l.dice.Int64N(int64(jitter)))
}

// own keeps c to be closed at the end; false when that has come.
func (l *badLink) own(c io.Closer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		c.Close()
		return false
	}
	l.conns[c] = true
	return true
}

func (l *badLink) disown(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close()
}

// badUDP loses, repeats, delays and reorders datagrams.
func badUDP(t *testing.T, target string) *badLink {
	t.Helper()
	l := newBadLink(t, target)
	near, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l.own(near)
	l.address = near.LocalAddr().String()
	l.running.Go(func() {
		far := make(map[netip.AddrPort]*net.UDPConn)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := near.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // a peer's port is closed: ICMP says so here
			}
			c := far[from]
			if c == nil {
				if c = l.farSide(near, from); c == nil {
					return
				}
				far[from] = c
			}
			l.forward(buf[:n], func(b []byte) { _, _ = c.Write(b) })
		}
	})
	return l
}

// farSide makes the socket that stands for one peer.
func (l *badLink) farSide(near *net.UDPConn, peer netip.AddrPort) *net.UDPConn {
	conn, err := net.Dial("udp", l.target)
	if err != nil || !l.own(conn) {
		return nil
	}
	c := conn.(*net.UDPConn)
	l.running.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				l.forward(buf[:n], func(b []byte) { _, _ = near.WriteToUDPAddrPort(b, peer) })
			}
		}
	})
	return c
}

// forward sends a datagram as badly as the link does.
func (l *badLink) forward(datagram []byte, send func([]byte)) {
	if l.isCut.Load() || l.chance(loss) {
		l.dropped.Add(1)
		return
	}
	l.passed.Add(1)
	copies := 1
	if l.chance(duplicate) {
		copies = 2
	}
	for range copies {
		b := append([]byte(nil), datagram...)
		time.AfterFunc(l.delay(), func() {
			if !l.isCut.Load() {
				send(b)
			}
		})
	}
}

// badTCP delays what passes and breaks its connections.
func badTCP(t *testing.T, target string) *badLink {
	t.Helper()
	l := newBadLink(t, target)
	near, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.own(near)
	l.address = near.Addr().String()
	l.running.Go(func() {
		for {
			c, err := near.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if l.isCut.Load() || err != nil {
				c.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{c, far}, {far, c}} {
				if l.own(way[0]) {
					l.running.Go(func() { l.drip(way[0], way[1]) })
				}
			}
		}
	})
	return l
}

// drip carries one direction of a connection, with pauses.
func (l *badLink) drip(from, to net.Conn) {
	defer l.disown(from)
	defer to.Close()
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		<-time.After(l.delay())
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		l.passed.Add(1)
	}
}

// badSerial is a line between two pseudo-terminals. The agent opens the device
// file near, the device far.
func badSerial(t *testing.T) (l *badLink, near, far string) {
	t.Helper()
	l = newBadLink(t, "")
	a, near := terminal(t, l)
	b, far := terminal(t, l)
	l.running.Go(func() { l.spoil(a, b) })
	l.running.Go(func() { l.spoil(b, a) })
	return l, near, far
}

// terminal makes a pty that stays when the last who opened it has closed it.
func terminal(t *testing.T, l *badLink) (master *os.File, path string) {
	t.Helper()
	master, path, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	l.own(master)
	keep, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.own(keep)
	return master, path
}

// spoil carries one direction of a serial line, and flips a bit now and then.
func (l *badLink) spoil(from, to io.ReadWriter) {
	buf := make([]byte, 4<<10)
	total := 0
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		for i := range n {
			if total++; total%flipEvery == 0 {
				buf[i] ^= 1 << (total / flipEvery % 8)
				l.dropped.Add(1)
			}
		}
		if l.isCut.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		l.passed.Add(int64(n))
	}
}

// cutFor cuts the link after a while, for 30 s.
func (l *badLink) cutFor(ctx context.Context, after, length time.Duration) {
	for _, step := range []struct {
		wait time.Duration
		do   func()
	}{{after, l.cut}, {length, l.mend}} {
		select {
		case <-time.After(step.wait):
			step.do()
		case <-ctx.Done():
			return
		}
	}
}
