package mcp_test

import (
	"context"
	"errors"
	"testing"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
)

// raw is a peer made by hand, in conversation with a server.
type raw struct {
	t       *testing.T
	conn    *conn
	session *mcp.Session
	version uint8
}

func newRaw(t *testing.T, cfg mcp.Config, h mcp.Handler) *raw {
	t.Helper()
	r := newSilent(t, false, cfg, h)
	hello := mcp.Hello{Sender: "press-7", Epoch: 1, Channels: []string{"main"}}
	r.say(mcp.CommandHello, hello.Append(nil))
	r.expect(mcp.CommandWelcome)
	return r
}

func newSilent(t *testing.T, serial bool, cfg mcp.Config, h mcp.Handler) *raw {
	a, b := link(serial)
	cfg.Role, cfg.Name, cfg.Epoch = mcp.Server, "gw-01", 9
	r := &raw{t: t, conn: b, session: mcp.NewSession(a, cfg, h), version: 2}
	go r.session.Run(context.Background())
	t.Cleanup(func() {
		b.Close()
		<-r.session.Done()
	})
	return r
}

func (r *raw) say(c mcp.Command, payload []byte) {
	r.t.Helper()
	if err := r.conn.Write(mustFrame(r.t, r.version, c, payload)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) expect(c mcp.Command) mcp.Frame {
	r.t.Helper()
	msg, err := r.conn.Read()
	if err != nil {
		r.t.Fatalf("instead of %v: %v", c, err)
	}
	f, err := mcp.ParseFrame(msg)
	if err != nil || f.Command != c {
		r.t.Fatalf("got %v, %v instead of %v", f, err, c)
	}
	return f
}

func (r *raw) expectAck(want mcp.Position) {
	r.t.Helper()
	got, err := mcp.ParseAck(nil, r.expect(mcp.CommandAck).Payload)
	if err != nil || len(got) != 1 || got[0] != want {
		r.t.Fatalf("got %+v, %v instead of %+v", got, err, want)
	}
}

// expectEnd wants an ERROR with this code and then a closed connection.
func (r *raw) expectEnd(code mcp.Code) {
	r.t.Helper()
	f := r.expect(mcp.CommandError)
	if f.Version != r.version {
		r.t.Errorf("answered in version %d", f.Version)
	}
	if len(f.Payload) < 2 || mcp.Code(f.Payload[1]) != code {
		r.t.Errorf("payload % X, want %v", f.Payload, code)
	}
	if _, err := r.conn.Read(); !errors.Is(err, transport.ErrLost) {
		r.t.Errorf("then: %v", err)
	}
	<-r.session.Done()
}
