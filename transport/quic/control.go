package quic

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// control is the stream that a Conn is, a framed.Stream, and with it the life
// of the connection: the Conn's Close ends both.
//
// It may be without a stream for a while. An accepted connection has none until
// the client's first byte. A dialed one that began with 0-RTT has one on trial:
// if the server rejects 0-RTT, all that was written on it is written again on
// another. `ready` is closed when that is over.
type control struct {
	conn    *quicgo.Conn
	linger  time.Duration
	release func() // lets go of the socket

	ready   chan struct{} // closed when stream is final; nil it is then only if the connection ended
	closing chan struct{} // closed by Close
	ended   atomic.Bool   // the peer has said its last

	dialed bool        // we opened the connection
	spoken atomic.Bool // something was written

	// mu guards what anyone may use at any time. The deadlines are kept here
	// because the stream may change; the waits serve until it is final.
	mu              sync.Mutex
	stream          *quicgo.Stream
	readBy, writeBy time.Time
	readWait        framed.Deadline
	writeWait       framed.Deadline
	names           *[]string // of the peer's certificate, once they are proven

	// writing is held by the one who writes, and by Close to finish.
	writing sync.Mutex
	early   []byte // written in 0-RTT, which may be rejected; nil when that is over
	torn    bool   // a Write failed: the peer may have half a message
}

var _ framed.Stream = (*control)(nil)

// maxEarly is how many bytes may be written before it is known whether the
// server takes 0-RTT; what goes beyond waits for that.
const maxEarly = 64 << 10

// past makes a deadline that is over.
func past() time.Time { return time.Unix(1, 0) }

func newControl(c *quicgo.Conn, linger time.Duration, release func()) *control {
	return &control{
		conn: c, linger: linger, release: release,
		ready: make(chan struct{}), closing: make(chan struct{}),
	}
}

// isReady says whether the stream is final.
func (c *control) isReady() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// setStream makes s the stream, with the deadlines that were set so far.
func (c *control) setStream(s *quicgo.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream = s
	if s == nil {
		return
	}
	s.SetPriority(controlUrgency, true)
	_ = s.SetReadDeadline(c.readBy)
	_ = s.SetWriteDeadline(c.writeBy)
}

// finalise says that the stream will not change any more.
func (c *control) finalise() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.ready)
	c.readWait.Set(time.Time{})
	c.writeWait.Set(time.Time{})
}

// awaitClient runs for an accepted connection until its stream is there and its
// handshake complete, or it has ended.
func (c *control) awaitClient() {
	s, err := c.conn.AcceptStream(c.conn.Context())
	if err != nil {
		<-c.conn.Context().Done() // so that there is a reason
	}
	c.setStream(s)
	c.finalise()
	select {
	case <-c.conn.HandshakeComplete():
	case <-c.conn.Context().Done():
	}
}

// awaitServer runs for a dialed connection that began with 0-RTT until the
// server has taken that or not.
func (c *control) awaitServer() {
	defer c.finalise()
	select {
	case <-c.conn.HandshakeComplete():
	case <-c.conn.Context().Done():
		return
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.conn.ConnectionState().Used0RTT {
		if err := c.sayAgain(); err != nil {
			c.setStream(nil)
			_ = c.conn.CloseWithError(0, "")
		}
	}
	c.early = nil
	awaken(c.conn)
}

// sayAgain opens another stream and repeats on it what was said in vain.
func (c *control) sayAgain() error {
	if _, err := c.conn.NextConnection(c.conn.Context()); err != nil {
		return err
	}
	s, err := c.conn.OpenStream()
	if err != nil {
		return err
	}
	c.setStream(s)
	_, err = s.Write(c.early)
	return err
}

// await waits until the stream is final.
func (c *control) await(deadline *framed.Deadline) error {
	select {
	case <-c.ready:
		return nil
	case <-deadline.Passed():
		return os.ErrDeadlineExceeded
	case <-c.closing:
		return net.ErrClosed
	}
}

// current is the stream, or why there is none. Both are nil while that is open.
func (c *control) current() (*quicgo.Stream, error) {
	final := c.isReady()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == nil && final {
		return nil, translate(context.Cause(c.conn.Context()))
	}
	return c.stream, nil
}

// Fill implements framed.Stream.
func (c *control) Fill(in *framed.Buffer, wait bool) (int, error) {
	for {
		n, err := c.fill(in, wait)
		switch {
		case c.isClosing():
			return 0, net.ErrClosed
		case errors.Is(err, io.EOF):
			c.ended.Store(true)
		case errors.Is(err, quicgo.Err0RTTRejected), errors.Is(err, errNoStream):
			if !wait {
				return 0, nil
			}
			if err := c.await(&c.readWait); err != nil {
				return 0, err
			}
			continue
		}
		return n, translate(err)
	}
}

var errNoStream = errors.New("there is no stream yet")

func (c *control) fill(in *framed.Buffer, wait bool) (int, error) {
	s, err := c.current()
	switch {
	case err != nil:
		return 0, err
	case s == nil:
		return 0, errNoStream
	}
	return fill(s, in, wait)
}

// awaken makes the server see the stream that the client has opened, so that it can speak first: a stream
// that nothing was sent on is not there yet for the other side, but one that is
// sent on opens those before it too (RFC 9000, section 3.2). So another one is
// opened, and ended at once.
func awaken(c *quicgo.Conn) {
	if s, err := c.OpenStream(); err == nil {
		s.CancelRead(0)
		_ = s.Close()
	}
}

func (c *control) isClosing() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// Write implements framed.Stream.
func (c *control) Write(p []byte) (int, error) {
	c.spoken.Store(true)
	for {
		n, err := c.write(p)
		switch {
		case errors.Is(err, errNoStream):
			if err := c.await(&c.writeWait); err != nil {
				return 0, err
			}
			continue
		case errors.Is(err, quicgo.Err0RTTRejected): // and p is repeated with all the rest
			if err := c.await(&c.writeWait); err != nil {
				return 0, err
			}
			if _, err := c.current(); err != nil {
				return 0, err
			}
			return len(p), nil
		}
		return n, translate(err)
	}
}

func (c *control) write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	s, err := c.current()
	switch {
	case err != nil:
		return 0, err
	case s == nil, c.early != nil && len(c.early)+len(p) > maxEarly:
		return 0, errNoStream
	}
	trial := c.early != nil
	if trial {
		c.early = append(c.early, p...)
	}
	n, err := s.Write(p)
	repeated := trial && errors.Is(err, quicgo.Err0RTTRejected)
	c.torn = c.torn || err != nil && !repeated
	return n, err
}

// SetReadDeadline implements framed.Stream.
func (c *control) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosing() {
		return nil
	}
	c.readBy = t
	if !c.isReady() {
		c.readWait.Set(t)
	}
	if c.stream == nil {
		return nil
	}
	return c.stream.SetReadDeadline(t)
}

// SetWriteDeadline implements framed.Stream.
func (c *control) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosing() {
		return nil
	}
	c.writeBy = t
	if !c.isReady() {
		c.writeWait.Set(t)
	}
	if c.stream == nil {
		return nil
	}
	return c.stream.SetWriteDeadline(t)
}

// Close implements framed.Stream. It unblocks Fill and Write at once, and ends
// the connection once the peer has read what was written or the linger time is
// over: the end of a connection throws away what is still on its way.
func (c *control) Close() error {
	c.interrupt()
	c.writing.Lock()
	defer c.writing.Unlock()
	if s, err := c.current(); err == nil && s != nil && c.spoken.Load() && !c.torn {
		c.finish(s)
	}
	_ = c.conn.CloseWithError(0, "")
	c.release()
	return nil
}

func (c *control) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readBy, c.writeBy = past(), past()
	close(c.closing)
	c.readWait.Set(time.Time{})
	c.writeWait.Set(time.Time{})
	if c.stream != nil {
		_ = c.stream.SetReadDeadline(past())
		_ = c.stream.SetWriteDeadline(past())
	}
}

// finish says that nothing more comes, and waits for the peer to say the same
// or to end the connection, which it does when it has read everything.
func (c *control) finish(s *quicgo.Stream) {
	_ = s.Close()
	if c.ended.Load() {
		return // it reads no more
	}
	enough := time.AfterFunc(c.linger, func() { _ = c.conn.CloseWithError(0, "") })
	defer enough.Stop()
	var last [512]byte
	for {
		_ = s.SetReadDeadline(time.Time{}) // a Fill that just ends may set one
		if _, err := s.Read(last[:]); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}
