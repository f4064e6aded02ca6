package quic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// streams are a connection's unidirectional streams and its datagrams.
type streams struct {
	control   *control
	pool      *framed.Pool
	info      transport.Info
	datagrams transport.Conn // nil if the peer takes none
}

var _ transport.Streams = (*streams)(nil)

func newStreams(c *control, p *framed.Pool, info transport.Info) *streams {
	s := &streams{control: c, pool: p, info: info}
	if c.conn.ConnectionState().SupportsDatagrams.Remote {
		s.datagrams = newDatagrams(c, info)
	}
	return s
}

// Open implements transport.Streams. In 0-RTT it waits for the end of the
// handshake.
func (s *streams) Open(ctx context.Context) (transport.Conn, error) {
	if err := s.settled(ctx); err != nil {
		return nil, s.fail("open a stream", err)
	}
	out, err := s.control.conn.OpenUniStreamSync(ctx)
	if err != nil {
		return nil, s.fail("open a stream", s.why(ctx, err))
	}
	return framed.New(&outgoing{SendStream: out}, nobody{}, s.pool, s.info), nil
}

// Accept implements transport.Streams.
func (s *streams) Accept(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	if err := s.settled(ctx); err != nil {
		return nil, s.fail("accept a stream", err)
	}
	in, err := s.control.conn.AcceptUniStream(ctx)
	if err != nil {
		return nil, s.fail("accept a stream", s.why(ctx, err))
	}
	return framed.New(&incoming{in}, f, s.pool, s.info), nil
}

// Datagrams implements transport.Streams.
func (s *streams) Datagrams() transport.Conn { return s.datagrams }

// settled waits until a rejection of 0-RTT can't take the streams away.
func (s *streams) settled(ctx context.Context) error {
	if !s.control.dialed {
		return nil
	}
	select {
	case <-s.control.ready:
		return nil
	case <-s.control.closing:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// why translates what opening or accepting brought.
func (s *streams) why(ctx context.Context, err error) error {
	switch {
	case s.control.isClosing():
		return net.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return translate(err)
}

func (s *streams) fail(op string, err error) error {
	return fmt.Errorf("quic %s: %s: %w", s.info.Remote, op, err)
}

// outgoing is a stream on which only we write.
type outgoing struct {
	*quicgo.SendStream

	writing sync.Mutex // held by the one who writes, and by Close
	torn    bool       // a Write failed: the peer may have half a message
}

var _ framed.Stream = (*outgoing)(nil)

var errOutgoing = gone{reason: "nothing comes on a stream on which only we write"}

// Fill implements framed.Stream.
func (*outgoing) Fill(*framed.Buffer, bool) (int, error) { return 0, errOutgoing }

// SetReadDeadline implements framed.Stream.
func (*outgoing) SetReadDeadline(time.Time) error { return nil }

// Write implements framed.Stream.
func (o *outgoing) Write(p []byte) (int, error) {
	o.writing.Lock()
	defer o.writing.Unlock()
	n, err := o.SendStream.Write(p)
	o.torn = o.torn || err != nil
	return n, translate(err)
}

// Close implements framed.Stream. What was written still arrives, if the
// connection lives.
func (o *outgoing) Close() error {
	_ = o.SetWriteDeadline(past())
	o.writing.Lock()
	defer o.writing.Unlock()
	if o.torn {
		o.CancelWrite(0)
	} else {
		_ = o.SendStream.Close() // fails when the peer wants no more of it
	}
	return nil
}

// incoming is a stream on which only the peer writes.
type incoming struct{ *quicgo.ReceiveStream }

var _ framed.Stream = (*incoming)(nil)

var errIncoming = errors.New("only the other side writes on this stream")

// Fill implements framed.Stream.
func (i *incoming) Fill(in *framed.Buffer, wait bool) (int, error) {
	n, err := fill(i.ReceiveStream, in, wait)
	return n, translate(err)
}

// Write implements framed.Stream.
func (*incoming) Write([]byte) (int, error) { return 0, errIncoming }

// SetWriteDeadline implements framed.Stream.
func (*incoming) SetWriteDeadline(time.Time) error { return nil }

// Close implements framed.Stream. The peer is told to stop.
func (i *incoming) Close() error {
	i.CancelRead(0)
	return nil
}

// nobody is the Framer where there is nothing to read.
type nobody struct{}

func (nobody) Split([]byte, bool) (int, []byte, error) { return 0, nil, nil }
func (nobody) Idle() time.Duration                     { return 0 }
func (nobody) Max() int                                { return 1 }
