package transporttest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// Weather is what a link of datagrams does to them. The zero value lets all
// pass, at once and in order.
type Weather struct {
	Seed      uint64        // the same weather again, if the same datagrams are written
	Loss      float64       // how many of 1 are lost
	Duplicate float64       // how many of 1 come twice
	Corrupt   float64       // how many of 1 have a bit flipped
	Delay     time.Duration // that each takes
	Jitter    time.Duration // up to so much more, so that they overtake each other
	// Cut says whether the link is down so long after it was made; nil: never.
	Cut        func(after time.Duration) bool
	MaxMessage int // default 1,200 bytes
}

// datagramQueue is how many datagrams wait for a reader; like a socket, a link
// drops those that come on top.
const datagramQueue = 4096

// Datagrams returns the two ends of an in-memory link whose messages are
// datagrams. Inside a synctest bubble, waiting on it blocks durably. An end that
// is closed is not noticed by the other one.
func Datagrams(w Weather) (transport.Conn, transport.Conn) {
	if w.MaxMessage == 0 {
		w.MaxMessage = 1200
	}
	a, b := newDatagramEnd(w, "a", "b"), newDatagramEnd(w, "b", "a")
	a.other, b.other = b, a
	return a, b
}

type datagramEnd struct {
	weather Weather
	info    transport.Info
	other   *datagramEnd
	start   time.Time
	expiry  framed.Deadline
	arrived chan []byte

	mu     sync.Mutex
	rng    *rand.Rand
	last   time.Time // when the latest datagram arrives, if they keep their order
	closed chan struct{}
	once   sync.Once
}

func newDatagramEnd(w Weather, local, remote string) *datagramEnd {
	return &datagramEnd{
		weather: w,
		info:    transport.Info{Transport: "memory", Local: local, Remote: remote, MaxMessage: w.MaxMessage},
		start:   time.Now(),
		arrived: make(chan []byte, datagramQueue),
		rng:     rand.New(rand.NewPCG(w.Seed, uint64(local[0]))),
		closed:  make(chan struct{}),
	}
}

// Read implements transport.Conn.
func (e *datagramEnd) Read() ([]byte, error) {
	select {
	case <-e.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case datagram := <-e.arrived:
		return datagram, nil
	case <-e.expiry.Passed():
		return nil, fmt.Errorf("datagrams: %w", os.ErrDeadlineExceeded)
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

// Write implements transport.Conn.
func (e *datagramEnd) Write(datagram []byte) error {
	select {
	case <-e.closed:
		return net.ErrClosed
	default:
	}
	w := &e.weather
	if len(datagram) > w.MaxMessage {
		return fmt.Errorf("datagrams: %w: %d bytes, at most %d", transport.ErrTooLarge, len(datagram), w.MaxMessage)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	copies := 1
	if e.rng.Float64() < w.Duplicate {
		copies = 2
	}
	for range copies {
		lost := e.rng.Float64() < w.Loss || w.Cut != nil && w.Cut(time.Since(e.start))
		damaged := e.rng.Float64() < w.Corrupt
		delay := w.Delay
		if w.Jitter > 0 {
			delay += time.Duration(e.rng.Int64N(int64(w.Jitter)))
		}
		if lost {
			continue
		}
		if w.Jitter == 0 && w.Delay > 0 { // timers that fire at the same time do so in any order
			delay = max(delay, time.Until(e.last)+1)
			e.last = time.Now().Add(delay)
		}
		e.carry(bytes.Clone(datagram), damaged, delay)
	}
	return nil
}

func (e *datagramEnd) carry(datagram []byte, damaged bool, delay time.Duration) {
	if damaged {
		datagram[e.rng.IntN(len(datagram))] ^= 1 << e.rng.IntN(8)
	}
	arrive := func() {
		select {
		case e.other.arrived <- datagram:
		default:
		}
	}
	if delay == 0 {
		arrive()
		return
	}
	time.AfterFunc(delay, arrive)
}

// Discard implements transport.Conn.
func (e *datagramEnd) Discard() error {
	for {
		select {
		case <-e.closed:
			return net.ErrClosed
		case <-e.arrived:
		default:
			return nil
		}
	}
}

// SetReadDeadline implements transport.Conn.
func (e *datagramEnd) SetReadDeadline(t time.Time) error {
	select {
	case <-e.closed:
		return net.ErrClosed
	default:
		e.expiry.Set(t)
		return nil
	}
}

// SetWriteDeadline implements transport.Conn: Write never waits.
func (e *datagramEnd) SetWriteDeadline(time.Time) error {
	select {
	case <-e.closed:
		return net.ErrClosed
	default:
		return nil
	}
}

// Info implements transport.Conn.
func (e *datagramEnd) Info() transport.Info { return e.info }

// Close implements transport.Conn.
func (e *datagramEnd) Close() error {
	e.once.Do(func() {
		e.expiry.Set(time.Time{})
		close(e.closed)
	})
	return nil
}
