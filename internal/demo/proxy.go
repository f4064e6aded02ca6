package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// proxy stands between the agent and the broker, and can be cut like a cable.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

func newProxy(ctx context.Context, target string) (*proxy, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return &proxy{listener: listener, target: target, conns: make(map[net.Conn]struct{})}, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// run forwards connections until ctx ends.
func (p *proxy) run(ctx context.Context) error {
	defer p.wg.Wait()
	defer context.AfterFunc(ctx, func() {
		p.listener.Close()
		p.setCut(true)
	})()
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		p.wg.Go(func() { p.forward(ctx, client) })
	}
}

// setCut drops every connection and refuses new ones, until it is mended.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.conns {
			c.Close()
		}
	}
}

// keep returns false, and closes c, while the cable is cut.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

func (p *proxy) forward(ctx context.Context, client net.Conn) {
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	broker, err := new(net.Dialer).DialContext(ctx, "tcp", p.target)
	if err != nil || !p.keep(broker) {
		return
	}
	defer p.drop(broker)
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(client, broker) // ends with the cable
		client.Close()
	}()
	_, _ = io.Copy(broker, client)
	broker.Close()
	<-back
}
