package mcp_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// agentOnUDP serves one device until it is killed.
type agentOnUDP struct {
	listener transport.Listener
	session  *mcp.Session
}

func startAgentOnUDP(t *testing.T, address string) *agentOnUDP {
	t.Helper()
	l, err := udp.Listen(t.Context(), address, udp.Config{Gate: mcp.NewGate().Check})
	if err != nil {
		t.Fatal(err)
	}
	return &agentOnUDP{listener: l}
}

func (a *agentOnUDP) serve(t *testing.T, h mcp.Handler) {
	t.Helper()
	conn, err := a.listener.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.session = mcp.NewSession(conn, mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 9}, h)
	go a.session.Run(context.Background())
}

// kill leaves the device without a word.
func (a *agentOnUDP) kill() {
	a.session.Abandon()
	<-a.session.Done()
	a.listener.Close()
}

func TestADeviceOnUDPComesBackSoonAfterTheAgentWasKilled(t *testing.T) {
	h := newReceiver()
	agent := startAgentOnUDP(t, "127.0.0.1:0")
	_, address, _ := strings.Cut(agent.listener.Endpoint(), " ")
	p, err := mcp.NewPublisher(mcp.PublisherConfig{Session: mcp.Config{Name: "press-7"}, Dialer: udp.NewDialer(address, udp.Config{})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() { stop(); <-done }()
	agent.serve(t, h)
	publishAll(t, p.Outbox, 1, 5)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	agent.kill() // nothing is said meanwhile, so the device does not notice
	agent = startAgentOnUDP(t, address)
	defer func() { agent.kill() }()
	start := time.Now()
	publishAll(t, p.Outbox, 6, 10)
	agent.serve(t, h)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !same(h.got, upTo(10)) || len(h.opened) != 2 || h.opened[0].Epoch != h.opened[1].Epoch {
		t.Errorf("got %v from %+v", h.got, h.opened)
	}
}
