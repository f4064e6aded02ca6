package quic

import (
	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// conn is a transport.Conn on a connection's first stream.
type conn struct {
	*framed.Conn
	control *control
}

var _ transport.Conn = (*conn)(nil)

func newConn(c *control, f transport.Framer, p pools) *conn {
	info := transport.Info{
		Transport: "quic",
		Local:     c.conn.LocalAddr().String(),
		Remote:    c.conn.RemoteAddr().String(),
		Reliable:  true,
		Ordered:   true,
	}
	if !c.dialed {
		info.Confirmed = c.conn.HandshakeComplete()
	}
	info.Streams = newStreams(c, p.beside, info)
	return &conn{Conn: framed.New(c, f, p.conn, info), control: c}
}

// Info implements transport.Conn.
func (c *conn) Info() transport.Info {
	info := c.Conn.Info()
	info.Names = c.control.peerNames()
	return info
}

// peerNames are those in the peer's certificate, none before they are proven.
func (c *control) peerNames() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names == nil {
		state := c.conn.ConnectionState()
		if !c.proven(state) {
			return nil
		}
		names := secure.Names(state.TLS)
		c.names = &names
	}
	return *c.names
}

// proven says whether what state tells of the peer is true. Before the end of
// the handshake it is for a client that comes back: its ticket, which only we
// can have made, has the certificate that it once proved to hold.
func (c *control) proven(state quicgo.ConnectionState) bool {
	select {
	case <-c.conn.HandshakeComplete():
		return true
	default:
		return !c.dialed && state.TLS.DidResume
	}
}
