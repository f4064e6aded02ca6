package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
)

// backlog is how many Conns may wait for Accept.
const backlog = 128

// Listener makes a Conn for each address that datagrams come from, on one
// socket. It may be used concurrently.
//
// Of an address that may be forged a plain Listener keeps nothing, if it has a
// Gate. With DTLS it keeps unfinished what it takes to check the cookie (RFC
// 6347, section 4.2.1), because the library can't begin with a hello that was
// checked already: at most 256 at a time, of 40 KiB each, and the oldest goes
// first. A Conn comes to Accept once its cookie has been right.
//
// A DTLS peer that sends the connection ID which it was given (RFC 9146) may
// change its address: its Conn goes on, and Info keeps the first one.
type Listener struct {
	socket *socket
	config Config
	local  string
	ready  chan *conn
	closed chan struct{}
	dropped

	mu      sync.Mutex
	closing bool
	conns   int // not yet released; the last one of a closed Listener closes the socket
	routes  map[netip.AddrPort]route
	ids     map[cid]*mailbox
	nursery nursery
}

// route is where an address's datagrams go.
type route struct {
	box     *mailbox
	movable bool // they have a connection ID, which is the better sign
}

var _ transport.Listener = (*Listener)(nil)

// Listen listens on "host:port"; port 0 takes a free one, which Endpoint names,
// and an empty host takes every address of the machine. ctx bounds the look-up
// of a host name only. A goroutine reads the socket until the Listener and all
// its Conns are closed.
func Listen(ctx context.Context, address string, config Config) (*Listener, error) {
	l, err := listen(ctx, address, config.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("udp %s: listen: %w", address, err)
	}
	go l.run()
	return l, nil
}

func listen(ctx context.Context, address string, config Config) (*Listener, error) {
	if config.TLS != nil {
		setup, err := newSettings(config, "")
		if err == nil {
			err = setup.check()
		}
		if err != nil {
			return nil, err
		}
	}
	c, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, netfault.Listen(ctx, err)
	}
	s, err := newSocket(c.(*net.UDPConn), config.MaxDatagram, false)
	if err != nil {
		return nil, netfault.Plain(err)
	}
	return &Listener{
		socket:  s,
		config:  config,
		local:   c.LocalAddr().String(),
		ready:   make(chan *conn, backlog),
		closed:  make(chan struct{}),
		routes:  make(map[netip.AddrPort]route),
		ids:     make(map[cid]*mailbox),
		nursery: newNursery(),
	}, nil
}

// Accept implements transport.Listener.
func (l *Listener) Accept(ctx context.Context) (transport.Conn, error) {
	err := ctx.Err()
	if err == nil {
		select {
		case c := <-l.ready:
			return c, nil
		case <-ctx.Done():
			err = ctx.Err()
		case <-l.closed:
			err = net.ErrClosed
		}
	}
	return nil, fmt.Errorf("%s: accept: %w", l.Endpoint(), err)
}

// Endpoint implements transport.Listener.
func (l *Listener) Endpoint() string { return "udp " + l.local }

// Close implements transport.Listener. Calls after the first do nothing.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return nil
	}
	l.closing = true
	close(l.closed)
	l.dropUnproven()
	l.closeIfLast()
	l.mu.Unlock()
	for {
		select {
		case c := <-l.ready:
			_ = c.Close()
		default:
			return nil
		}
	}
}

// closeIfLast is called with mu.
func (l *Listener) closeIfLast() {
	if l.closing && l.conns == 0 {
		l.socket.close()
	}
}

// pause is how long run waits after an error that it does not know.
const pause = 10 * time.Millisecond

func (l *Listener) run() {
	for {
		p, err := l.socket.receive()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil && !isNotice(err):
			select {
			case <-time.After(pause):
			case <-l.closed:
			}
		case err == nil && !l.deliver(p):
			l.socket.packets.takeBack(p)
		}
	}
}

// deliver takes over p, or counts why not.
func (l *Listener) deliver(p *packet) bool {
	if l.config.TLS != nil {
		if id, ok := connectionID(p.bytes()); ok {
			l.mu.Lock()
			box := l.ids[id]
			l.mu.Unlock()
			return l.put(box, p)
		}
		if h, ok := parseHello(p.bytes()); ok && !p.cut {
			if taken, done := l.greet(p, h); done {
				return taken
			}
		}
	}
	l.mu.Lock()
	box := l.routes[p.from].box
	l.mu.Unlock()
	if box == nil && l.config.TLS == nil && !p.cut {
		return l.admit(p)
	}
	return l.put(box, p)
}

func (l *Listener) put(box *mailbox, p *packet) bool {
	switch {
	case box == nil:
		l.strange.Add(1)
		return false
	case !box.put(p):
		l.overflow.Add(1)
		return false
	}
	return true
}

// admit asks the Gate about an address without a Conn, and makes it one.
func (l *Listener) admit(p *packet) bool {
	if l.config.Gate != nil {
		reply, admit := l.config.Gate(p.from, p.bytes())
		if !admit {
			l.refused.Add(1) // before who is answered can ask for it
		}
		if len(reply) > 0 && len(reply) <= p.n {
			_ = l.socket.send(reply, p.from, leaveFrom(p.to)) // who asked in earnest asks again
		}
		if !admit {
			return false
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.newConn(p)
	c.carrier = &berth{listener: l, remote: p.from, source: leaveFrom(p.to)}
	if !l.offer(c) {
		return false
	}
	l.conns++
	l.routes[p.from] = route{box: c.in}
	return c.in.put(p)
}

// newConn is for the one who sent p, without a carrier.
func (l *Listener) newConn(p *packet) *conn {
	local := l.local
	if p.to.IsValid() {
		port := l.socket.udp.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		local = netip.AddrPortFrom(p.to.Unmap(), port).String()
	}
	return &conn{in: newMailbox(l.socket.packets), info: info(l.config, local, p.from)}
}

// offer hands a Conn to Accept, if there is room. It is called with mu, and by
// run only.
func (l *Listener) offer(c *conn) bool {
	if l.closing || len(l.ready) == cap(l.ready) {
		l.backlog.Add(1)
		return false
	}
	l.ready <- c
	return true
}

// berth is a plain Conn's place in the Listener.
type berth struct {
	listener *Listener
	remote   netip.AddrPort
	source   source
}

var _ carrier = (*berth)(nil)

func (b *berth) begin() {}

func (b *berth) names() []string { return nil }

func (b *berth) shakenHands(*framed.Deadline) error { return nil }

func (b *berth) send(msg []byte) error {
	return b.listener.socket.send(msg, b.remote, b.source)
}

func (b *berth) close() {
	l := b.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.routes, b.remote)
	l.conns--
	l.closeIfLast()
}
