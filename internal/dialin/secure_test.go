package dialin

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/quic"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// callWith has a device call; it returns nil if it is refused.
func callWith(t *testing.T, d transport.Dialer) transport.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := d.Dial(ctx, framing())
	if err != nil {
		return nil
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func tell(t *testing.T, c transport.Conn, msg string) {
	t.Helper()
	if err := c.Write(transporttest.Frame([]byte(msg))); err != nil {
		t.Fatal(err)
	}
}

func TestACallerWithoutAGoodCertificateTakesNoLineOverWithDTLS(t *testing.T) {
	ca, other := transporttest.NewCA(t), transporttest.NewCA(t)
	d, address := newDialerOn(t, "udp", netip.Addr{}, func(ctx context.Context, _ func() transport.Framer) (transport.Listener, error) {
		return udp.Listen(ctx, "127.0.0.1:0", udp.Config{TLS: ca.MutualServer()})
	})
	waiting := dial(t, d)
	at := <-address
	call := func(secure transport.TLS) transport.Conn {
		return callWith(t, udp.NewDialer(at, udp.Config{TLS: secure}))
	}
	device := call(ca.Client("press-7"))
	conn := (<-waiting).must(t)
	if names := conn.Info().Names; !slices.Contains(names, "press-7") {
		t.Errorf("the caller is %q", names)
	}
	foreign := other.Client("press-7")().Clone()
	foreign.RootCAs = ca.Client()().RootCAs
	for n, secure := range []transport.TLS{ca.Client(), func() *tls.Config { return foreign }} {
		if call(secure) != nil {
			t.Errorf("stranger %d is let in", n)
		}
		eventually(t, "the stranger", func() bool { return d.Stats() == Stats{Calls: 1, Foreign: uint64(n + 1)} })
	}
	tell(t, device, "still here")
	expect(t, conn, "still here")
	tell(t, conn, "and we")
	expect(t, device, "and we")
}

func TestACallOverPlainUDPBeginsWithItsFirstDatagram(t *testing.T) {
	d, address := newDialerOn(t, "udp", netip.Addr{}, func(ctx context.Context, _ func() transport.Framer) (transport.Listener, error) {
		return udp.Listen(ctx, "127.0.0.1:0", udp.Config{})
	})
	waiting := dial(t, d)
	device := callWith(t, udp.NewDialer(<-address, udp.Config{}))
	tell(t, device, "hello")
	conn := (<-waiting).must(t)
	expect(t, conn, "hello")
	tell(t, conn, "welcome")
	expect(t, device, "welcome") // and no empty datagram before it
}

func TestAReplayOfACallTakesNoLineOver(t *testing.T) {
	ca := transporttest.NewCA(t)
	d, address := newDialerOn(t, "quic", netip.Addr{}, func(ctx context.Context, framers func() transport.Framer) (transport.Listener, error) {
		return quic.Listen(ctx, "127.0.0.1:0", framers, ca.MutualServer())
	})
	d.patience = 2 * time.Second
	secure := ca.Client("press-7")()
	secure.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	call := func(at string) transport.Conn {
		c := callWith(t, quic.NewDialer(at, func() *tls.Config { return secure }))
		if c == nil {
			t.Fatal("the device can't call")
		}
		tell(t, c, "hello")
		return c
	}
	waiting := dial(t, d)
	at := <-address
	first := call(at)
	conn := (<-waiting).must(t)
	tell(t, conn, "welcome") // the ticket for 0-RTT comes before it
	expect(t, first, "welcome")

	tape := record(t)
	call(tape.address()) // its packets reach nobody but the one who replays them
	device := call(at)
	conn = (<-dial(t, d)).must(t)
	expect(t, conn, "hello")

	before := d.Stats()
	tape.replay(t, at, func() bool { return d.Stats() != before })
	if now := d.Stats(); now.Calls != before.Calls || now.Foreign != before.Foreign+1 {
		t.Errorf("a replay: %+v, before it %+v", now, before)
	}
	tell(t, device, "still here")
	expect(t, conn, "still here")
}

// tape keeps what is sent to its socket.
type tape struct {
	socket net.PacketConn
	mu     sync.Mutex
	kept   [][]byte
}

func record(t *testing.T) *tape {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &tape{socket: socket}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, _, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.kept = append(r.kept, slices.Clone(buf[:n]))
			r.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		socket.Close()
		<-done
	})
	return r
}

func (r *tape) address() string { return r.socket.LocalAddr().String() }

// replay sends each datagram once, as it comes, until enough says so.
func (r *tape) replay(t *testing.T, to string, enough func() bool) {
	t.Helper()
	c, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := 0
	eventually(t, "something to come of the replay", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for ; sent < len(r.kept); sent++ {
			if _, err := c.Write(r.kept[sent]); err != nil {
				t.Fatal(err)
			}
		}
		return enough()
	})
}
