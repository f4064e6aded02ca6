package mcp_test

import (
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
)

func TestAnIdleSessionStaysOpenByHeartbeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(false, mcp.Config{}, mcp.Config{}, newReceiver(), newReceiver())
		defer p.stop()
		<-p.client.Opened()
		select {
		case <-time.After(10 * time.Minute):
		case <-p.client.Done():
			_, err := p.client.State()
			t.Errorf("closed: %v", err)
		}
	})
}

func TestThreeMissedHeartbeatsCloseTheSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := link(false)
		s := mcp.NewSession(a, mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 1}, newReceiver())
		done := make(chan error, 1)
		go func() { done <- s.Run(t.Context()) }()
		hello := mcp.Hello{Sender: "press-7", Epoch: 1}
		if err := b.Write(mustFrame(t, 2, mcp.CommandHello, hello.Append(nil))); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		asked := 0
		for {
			msg, err := b.Read()
			if err != nil {
				break
			}
			if f, _ := mcp.ParseFrame(msg); f.Command == mcp.CommandHeartbeat {
				asked++
			}
		}
		if err := <-done; !mcp.IsCode(err, mcp.CodeHeartbeatMissed) || time.Since(start).Round(time.Second) != 91*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestAnyFrameCountsAsLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := link(false)
		s := mcp.NewSession(a, mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 1}, newReceiver())
		go s.Run(t.Context())
		go func() {
			for {
				if _, err := b.Read(); err != nil {
					return
				}
			}
		}()
		hello := mcp.Hello{Sender: "press-7", Epoch: 1}
		b.Write(mustFrame(t, 2, mcp.CommandHello, hello.Append(nil)))
		for range 10 {
			<-time.After(80 * time.Second)
			if err := b.Write(mustFrame(t, 2, mcp.CommandAck, nil)); err != nil {
				t.Fatal(err)
			}
		}
		if state, err := s.State(); state != mcp.Open {
			t.Errorf("%v, %v", state, err)
		}
		b.Close()
		<-s.Done()
	})
}

func TestAWriteToAPeerThatFellSilentEndsAfterThreeHeartbeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{})
		s, far := pipeRaw(t, mcp.Config{Role: mcp.Server, Outboxes: []*mcp.Outbox{up}}, newReceiver(), 0)
		for range 300 { // more than the line holds
			if err := up.PublishRaw(t.Context(), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		ack := mcp.AppendAck(nil, []mcp.Position{{Channel: "main"}})
		if err := far.Write(mustFrame(t, 2, mcp.CommandAck, ack)); err != nil { // it begins to send
			t.Fatal(err)
		}
		<-s.Done()
		if _, err := s.State(); !mcp.IsCode(err, mcp.CodeHeartbeatMissed) || time.Since(start) > 95*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}
