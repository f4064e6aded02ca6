package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// secureConn is a Conn whose handshake tells who the peer is.
type secureConn struct {
	*framed.Conn
	stream *tlsStream
}

func newSecureConn(s *tlsStream, f transport.Framer, p *framed.Pool, info transport.Info) *secureConn {
	return &secureConn{Conn: framed.New(s, f, p, info), stream: s}
}

// Info implements transport.Conn.
func (c *secureConn) Info() transport.Info {
	info := c.Conn.Info()
	select {
	case <-c.stream.shaken:
		info.Names = c.stream.names
	default:
	}
	return info
}

const (
	// handshakeTime bounds a handshake that no context or deadline bounds. A
	// small controller on a slow line takes up to ten seconds for its part.
	handshakeTime = time.Minute
	// farewell is how long Close and a failed handshake may take to tell the
	// peer. What can't be sent at once would hardly be read.
	farewell = 200 * time.Millisecond
)

// tlsStream is a framed.Stream with TLS on a TCP connection.
//
// The handshake has a goroutine of its own, which ends with it: so deadlines
// bound the waiting for it without breaking it off, and what it needs of stack
// and memory is gone afterwards.
type tlsStream struct {
	wire *wire
	tls  *tls.Conn

	begin   sync.Once
	shaken  chan struct{} // closed when the handshake is over
	failure error         // why it failed; set before shaken is closed
	names   []string      // of the peer's certificate; likewise

	// mu guards the deadlines, which are kept here until the handshake is over
	// and belong to the connection from then on.
	mu              sync.Mutex
	over            bool
	readBy, writeBy time.Time
	read, write     framed.Deadline
}

var _ framed.Stream = (*tlsStream)(nil)

// newTLS takes over c, unless it fails. side is tls.Client or tls.Server.
func newTLS(c *net.TCPConn, p *framed.Pool, config *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn) (*tlsStream, error) {
	descriptor, err := framed.NewDescriptor(c)
	if err != nil {
		return nil, err
	}
	w := &wire{TCPConn: c, descriptor: descriptor, in: framed.NewBuffer(p), patient: true}
	return &tlsStream{wire: w, tls: side(w, config), shaken: make(chan struct{})}, nil
}

// handshakeWithin makes the handshake before ctx ends.
func (s *tlsStream) handshakeWithin(ctx context.Context) error {
	s.begin.Do(func() { go s.shakeHands() })
	select {
	case <-s.shaken:
		return s.failure
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ready waits until the handshake is over or the deadline has passed.
func (s *tlsStream) ready(deadline *framed.Deadline) error {
	select {
	case <-s.shaken:
		return s.failure
	default:
	}
	s.begin.Do(func() { go s.shakeHands() })
	select {
	case <-s.shaken:
		return s.failure
	case <-deadline.Passed():
		return os.ErrDeadlineExceeded
	}
}

func (s *tlsStream) shakeHands() {
	_ = s.wire.TCPConn.SetDeadline(time.Now().Add(handshakeTime))
	err := s.tls.HandshakeContext(context.Background()) // Close ends it
	if err == nil {
		s.names = secure.Names(s.tls.ConnectionState())
	} else {
		s.failure = s.wire.handshakeError(err)
		s.wire.linger()
	}
	s.wire.patient = false

	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.read.Set(time.Time{})
	s.write.Set(time.Time{})
	_ = s.wire.TCPConn.SetReadDeadline(s.readBy)
	_ = s.wire.TCPConn.SetWriteDeadline(s.writeBy)
	close(s.shaken)
}

func (w *wire) handshakeError(err error) error {
	if alert := w.tail.Alert(); alert != nil {
		err = alert
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // not the caller's deadline
		return transport.Handshake(refused{reason: fmt.Sprintf("the TLS handshake took more than %v", handshakeTime)})
	}
	if err = explained(err); errors.Is(err, transport.ErrLost) {
		return transport.Handshake(err)
	}
	return err
}

// refused is an end of the connection that TLS brought about. It is of class
// transport.ErrLost, and permanent where only people can mend it.
type refused struct {
	reason  string
	settled bool
}

func (r refused) Error() string { return r.reason }

func (r refused) Is(target error) bool {
	return target == transport.ErrLost || r.settled && target == transport.ErrPermanent
}

// explained puts an error of crypto/tls into words, and leaves others alone.
func explained(err error) error {
	if reason, settled, ok := secure.Explain(err); ok {
		return refused{reason, settled}
	}
	return err
}

// Fill implements framed.Stream. It waits for bytes of the connection, not for
// those that TLS makes of them: memory is borrowed once they are there.
func (s *tlsStream) Fill(in *framed.Buffer, wait bool) (int, error) {
	if !wait {
		select {
		case <-s.shaken:
		default:
			return 0, nil
		}
	}
	if err := s.ready(&s.read); err != nil {
		return 0, err
	}
	for {
		n, err := s.tls.Read(in.Space())
		switch {
		case n > 0:
			return n, nil // an error stays, and comes again
		case !errors.Is(err, errNothing):
			in.Release()
			return 0, readError(err)
		}
		in.Release()
		if n, err = s.wire.fill(wait); n == 0 || err != nil {
			return 0, err
		}
	}
}

// readError translates what crypto/tls's Read answers. io.EOF is close_notify.
func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return explained(err)
}

// Write implements framed.Stream.
func (s *tlsStream) Write(p []byte) (int, error) {
	if err := s.ready(&s.write); err != nil {
		return 0, err
	}
	return s.tls.Write(p)
}

// SetReadDeadline implements framed.Stream.
func (s *tlsStream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readBy = t
	if s.over {
		return s.wire.TCPConn.SetReadDeadline(t)
	}
	s.read.Set(t)
	return nil
}

// SetWriteDeadline implements framed.Stream.
func (s *tlsStream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeBy = t
	if s.over {
		return s.wire.TCPConn.SetWriteDeadline(t)
	}
	s.write.Set(t)
	return nil
}

// Close implements framed.Stream. It says close_notify if nothing is being
// written, and never waits for the peer.
func (s *tlsStream) Close() error {
	_ = s.wire.TCPConn.SetWriteDeadline(time.Now().Add(farewell))
	_ = s.tls.Close() // fails also when the peer could not be told
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read.Set(time.Time{})
	s.write.Set(time.Time{})
	return s.wire.closing
}
