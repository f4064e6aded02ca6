package mcp_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// converse publishes records and returns how the session ended, nil if they
// were acknowledged.
func converse(t *testing.T, s *server, cfg mcp.Config, records ...record.Record) error {
	t.Helper()
	o, err := mcp.NewOutbox(mcp.OutboxConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Publish(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	conn, err := tcp.NewDialer(s.address, nil).Dial(t.Context(), mcp.NewStreamFramer(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		if o.Flush(ctx) == nil {
			cancel()
		}
	}()
	cfg.Epoch, cfg.Outboxes = mcp.NewEpoch(), []*mcp.Outbox{o}
	return mcp.NewSession(conn, cfg, mcp.NoHandler{}).Run(ctx)
}

// rawPeer says what no Session would.
type rawPeer struct {
	t    testing.TB
	conn net.Conn
	in   []byte
}

// connect connects from 127.0.0.1, or another address of this machine.
func connect(t testing.TB, address string, from ...byte) *rawPeer {
	t.Helper()
	d := net.Dialer{Timeout: patience}
	if len(from) > 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, from[0])}
	}
	c, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &rawPeer{t: t, conn: c}
}

func (p *rawPeer) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Errorf("write: %v", err)
	}
}

func frame(t testing.TB, c mcp.Command, payload []byte) []byte {
	t.Helper()
	b, err := mcp.AppendFrame(nil, mcp.Version2, c, payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *rawPeer) publish(payload []byte) { p.write(frame(p.t, mcp.CommandPublish, payload)) }

// publishRecords publishes them on the channel main, behind number previous.
func (p *rawPeer) publishRecords(previous uint64, records ...record.Record) {
	p.t.Helper()
	var list []byte
	for _, r := range records {
		list = mcp.AppendRecord(list, r.Append(nil))
	}
	p.publish(mcp.AppendPublish(nil, "main", previous, nil, list))
}

// hello introduces the peer and waits for WELCOME.
func (p *rawPeer) hello(sender string) {
	p.t.Helper()
	h := mcp.Hello{Sender: sender, Epoch: mcp.NewEpoch(), Channels: []string{"main"}, Versions: []uint8{2}}
	p.write(frame(p.t, mcp.CommandHello, h.Append(nil)))
	if f, err := p.next(); err != nil || f.Command != mcp.CommandWelcome {
		p.t.Errorf("HELLO is answered with %v, %v", f.Command, err)
	}
}

// next reads a frame.
func (p *rawPeer) next() (mcp.Frame, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	framer := mcp.NewStreamFramer(0, 0)
	for {
		n, msg, err := framer.Split(p.in, false)
		if msg != nil || err != nil {
			p.in = p.in[n:]
			if err != nil {
				return mcp.Frame{}, err
			}
			return mcp.ParseFrame(msg)
		}
		buf := make([]byte, 4096)
		n, err = p.conn.Read(buf)
		p.in = append(p.in, buf[:n]...)
		if err != nil && n == 0 {
			return mcp.Frame{}, err
		}
	}
}

// wantAck reads until everything up to number is acknowledged.
func (p *rawPeer) wantAck(number uint64) {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil || f.Command == mcp.CommandError {
			p.t.Fatalf("instead of ACK %d: %q, %v", number, f.Payload, err)
		}
		if f.Command != mcp.CommandAck {
			continue
		}
		acks, err := mcp.ParseAck(nil, f.Payload)
		if err != nil {
			p.t.Fatal(err)
		}
		if len(acks) > 0 && acks[0].Number >= number {
			return
		}
	}
}

// wantError reads until ERROR or CLOSE and wants its code.
func (p *rawPeer) wantError(code mcp.Code) {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil {
			p.t.Errorf("no ERROR %v: %v", code, err)
			return
		}
		if f.Command != mcp.CommandError && f.Command != mcp.CommandClose {
			continue
		}
		if got := mcp.Code(f.Payload[1]); f.Payload[0] != 8 || got != code {
			p.t.Errorf("the session ends with %v (%q), want %v", got, f.Payload, code)
		}
		return
	}
}

// closed waits for the other side to hang up.
func (p *rawPeer) closed() {
	p.t.Helper()
	for {
		if _, err := p.next(); err != nil {
			if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, transport.ErrFrame) {
				p.t.Errorf("it does not hang up: %v", err)
			}
			return
		}
	}
}
