package transporttest

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// Pipe returns the two ends of an in-memory line, which behaves like a TCP
// connection: 64 KiB wait in each direction before Write blocks. Inside a
// synctest bubble, waiting on it blocks durably.
func Pipe(a, b transport.Framer) (transport.Conn, transport.Conn) {
	endA, endB := newWire()
	return newConn(endA, a, "a", "b"), newConn(endB, b, "b", "a")
}

func newConn(e *end, f transport.Framer, local, remote string) transport.Conn {
	return framed.New(e, f, framed.NewPool(capacity), transport.Info{
		Transport: "memory",
		Local:     local,
		Remote:    remote,
		Reliable:  true,
		Ordered:   true,
	})
}

// Exchange is an in-memory place to dial and to listen on: it is its own Dialer
// and Listener. Dial waits for an Accept.
type Exchange struct {
	name    string
	framers func() transport.Framer
	dialed  chan *end
	once    sync.Once
	closed  chan struct{}
}

var (
	_ transport.Dialer   = (*Exchange)(nil)
	_ transport.Listener = (*Exchange)(nil)
)

// NewExchange makes one whose accepted Conns get their Framers from framers.
func NewExchange(name string, framers func() transport.Framer) *Exchange {
	return &Exchange{name: name, framers: framers, dialed: make(chan *end), closed: make(chan struct{})}
}

// Dial implements transport.Dialer. After Close nobody answers, and it fails
// with transport.ErrLost.
func (x *Exchange) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	near, err := x.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: dial: %w", x.Endpoint(), err)
	}
	return newConn(near, f, "dialer", x.name), nil
}

func (x *Exchange) dial(ctx context.Context) (*end, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	near, far := newWire()
	select {
	case x.dialed <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-x.closed:
		return nil, transport.Lost(nil)
	}
}

// Accept implements transport.Listener.
func (x *Exchange) Accept(ctx context.Context) (transport.Conn, error) {
	far, err := x.accept(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: accept: %w", x.Endpoint(), err)
	}
	return newConn(far, x.framers(), x.name, "dialer"), nil
}

func (x *Exchange) accept(ctx context.Context) (*end, error) {
	select {
	case <-x.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case far := <-x.dialed:
		return far, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-x.closed:
		return nil, net.ErrClosed
	}
}

// Endpoint implements transport.Dialer and transport.Listener.
func (x *Exchange) Endpoint() string { return "memory " + x.name }

// Close implements transport.Listener.
func (x *Exchange) Close() error {
	x.once.Do(func() { close(x.closed) })
	return nil
}
