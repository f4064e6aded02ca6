package udp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pion/dtls/v3"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// session is a DTLS session: a carrier on a lower one. The library makes its
// handshake and its records; it reads what comes from a mailbox and writes to
// lower.
type session struct {
	lower    lower
	records  *mailbox // what the peer has sent
	messages *mailbox // what was in it
	pion     *dtls.Conn
	settings *settings
	dialed   bool
	starting func() // tells the lower that the Conn is being used; nil: nobody
	once     sync.Once

	ctx  context.Context // ends the handshake
	stop context.CancelFunc

	gathered int           // bytes taken of what anybody may have sent
	shaken   chan struct{} // closed when the handshake is over
	failure  error         // why it failed; set before shaken is closed
	proven   []string      // the names in the peer's certificate; likewise
	ended    chan struct{} // closed when run is over
}

// lower carries a session's records.
type lower interface {
	// sendTo sends to where the library believes the peer to be.
	sendTo(record []byte, to netip.AddrPort) error
	// peer is where it is first.
	peer() netip.AddrPort
	// close is called once.
	close()
}

var _ carrier = (*session)(nil)

// handshakeBytes bounds what a peer that has proven nothing but its address, or
// somebody with a forged one, can make the library keep. The longest chain of
// certificates, sent four times, is a quarter of it.
const handshakeBytes = 128 << 10

func newSession(side func(*session) (*dtls.Conn, error), on lower, records, messages *mailbox) (*session, error) {
	ctx, stop := context.WithCancel(context.Background())
	s := &session{
		lower: on, records: records, messages: messages,
		ctx: ctx, stop: stop,
		shaken: make(chan struct{}), ended: make(chan struct{}),
	}
	var err error
	if s.pion, err = side(s); err != nil {
		stop()
		return nil, transport.Permanent(errors.New("DTLS: " + err.Error()))
	}
	return s, nil
}

// run makes the handshake and then brings in messages. It ends when either side
// ends the session.
func (s *session) run() {
	defer close(s.ended)
	err := s.pion.HandshakeContext(s.ctx)
	if err == nil {
		s.proven = secure.Names(tls.ConnectionState{VerifiedChains: s.settings.chains})
		close(s.shaken)
		err = s.receive()
	} else {
		s.failure = s.handshakeError(err)
		err = s.failure
		close(s.shaken)
	}
	s.messages.end(err)
	_ = s.pion.Close()
}

func (s *session) receive() error {
	pool := s.messages.packets
	for {
		p := pool.lend()
		var err error
		p.n, err = s.pion.Read(p.data)
		if err == nil && s.messages.put(p) {
			continue
		}
		pool.takeBack(p)
		// Any other error is about a record, which is dropped.
		if errors.Is(err, io.EOF) {
			return s.sessionError()
		}
	}
}

// begin implements carrier.
func (s *session) begin() {
	s.once.Do(func() {
		if s.starting != nil {
			s.starting()
		}
	})
}

// handshakeWithin waits for the handshake at most until ctx ends.
func (s *session) handshakeWithin(ctx context.Context) error {
	select {
	case <-s.shaken:
		return s.failure
	case <-ctx.Done():
		return netfault.InTime(ctx.Err(), noAnswer)
	}
}

// shakenHands implements carrier.
func (s *session) shakenHands(deadline *framed.Deadline) error {
	select {
	case <-s.shaken:
		return s.failure
	default:
	}
	select {
	case <-s.shaken:
		return s.failure
	case <-deadline.Passed():
		return os.ErrDeadlineExceeded
	}
}

// send implements carrier.
func (s *session) send(msg []byte) error {
	_, err := s.pion.Write(msg)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, transport.ErrTooLarge):
		return tooLargeForTheWay(len(msg) + secureOverhead)
	}
	return s.sessionError()
}

// names implements carrier.
func (s *session) names() []string {
	select {
	case <-s.shaken:
		return s.proven
	default:
		return nil
	}
}

// close implements carrier. The peer is told, and may miss it.
func (s *session) close() {
	s.stop()
	_ = s.pion.Close()
	<-s.ended
	s.lower.close()
}

// sessionError says why a session is over. What the library says of it is no
// more than that it is.
func (s *session) sessionError() error {
	if err := s.records.ending(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return transport.Lost(errors.New("the other side closed the connection"))
}

// address is a net.Addr that can be compared.
type address netip.AddrPort

func (address) Network() string  { return "udp" }
func (a address) String() string { return netip.AddrPort(a).String() }

// wire is a session's lower as the library sees it.
type wire struct{ *session }

var _ net.PacketConn = wire{}

// ReadFrom implements net.PacketConn.
func (w wire) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p, err := w.records.take()
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return 0, nil, err
		}
		if err != nil {
			return 0, nil, io.EOF // sessionError finds err
		}
		n, from := copy(b, p.bytes()), address(p.from)
		usable := !p.cut && n == p.n && w.allows(b[:n])
		w.records.packets.takeBack(p)
		if usable {
			return n, from, nil
		}
	}
}

// allows keeps harm from the library.
func (w wire) allows(d []byte) bool {
	expected := cidSize
	if w.dialed {
		expected = 0
	}
	established := false
	select {
	case <-w.shaken:
		established = true
	default:
		w.gathered += len(d)
	}
	unencrypted, ok := harmless(d, expected, established)
	if established {
		w.gathered += unencrypted
	}
	return ok && (w.gathered <= handshakeBytes || established && unencrypted == 0)
}

// WriteTo implements net.PacketConn.
func (w wire) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := w.lower.sendTo(mendAlert(b), netip.AddrPort(to.(address))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close implements net.PacketConn: the library reads no more.
func (w wire) Close() error {
	w.records.end(net.ErrClosed)
	return nil
}

// LocalAddr implements net.PacketConn.
func (wire) LocalAddr() net.Addr { return address{} }

// SetReadDeadline implements net.PacketConn.
func (w wire) SetReadDeadline(t time.Time) error {
	w.records.deadline.Set(t)
	return nil
}

// SetDeadline implements net.PacketConn.
func (w wire) SetDeadline(t time.Time) error { return w.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn: a datagram does not wait.
func (wire) SetWriteDeadline(time.Time) error { return nil }
