package dialin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

func framing() transport.Framer { return &transporttest.LengthFramer{} }

// newDialer waits for calls over TCP; address is where to call once dial has
// been called.
func newDialer(t *testing.T, remote netip.Addr, secure transport.TLS) (d *Dialer, address <-chan string) {
	t.Helper()
	return newDialerOn(t, "tcp", remote, func(ctx context.Context, framers func() transport.Framer) (transport.Listener, error) {
		return tcp.Listen(ctx, "127.0.0.1:0", framers, secure)
	})
}

// newDialerOn is newDialer for any transport.
func newDialerOn(t *testing.T, network string, remote netip.Addr, listen Listen) (d *Dialer, address <-chan string) {
	t.Helper()
	bound := make(chan string, 1)
	d = New(Config{
		Endpoint: network + " 127.0.0.1", Remote: remote, Log: slog.New(slog.DiscardHandler),
		Listen: func(ctx context.Context, framers func() transport.Framer) (transport.Listener, error) {
			l, err := listen(ctx, framers)
			if err == nil {
				bound <- strings.TrimPrefix(l.Endpoint(), network+" ")
			}
			return l, err
		},
	})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d, bound
}

type dialed struct {
	transport.Conn
	err error
}

// dial dials in the background.
func dial(t *testing.T, d *Dialer) <-chan dialed {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	result := make(chan dialed, 1)
	go func() {
		c, err := d.Dial(ctx, framing())
		result <- dialed{c, err}
	}()
	return result
}

func (d dialed) must(t *testing.T) transport.Conn {
	t.Helper()
	if d.err != nil {
		t.Fatal(d.err)
	}
	t.Cleanup(func() { d.Close() })
	return d.Conn
}

func ring(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// expect wants the next message.
func expect(t *testing.T, c transport.Conn, want string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	msg, err := c.Read()
	if err != nil || string(msg) != string(transporttest.Frame([]byte(want))) {
		t.Fatalf("read %q, %v", msg, err)
	}
}

func say(t *testing.T, c net.Conn, msg string) {
	t.Helper()
	if _, err := c.Write(transporttest.Frame([]byte(msg))); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for giveUp := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-giveUp:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// far can die without a goodbye.
type far struct{ *net.TCPConn }

func (f far) Abort() error {
	if err := f.SetLinger(0); err != nil {
		return err
	}
	return f.Close()
}

func TestAConnThatTheDeviceMadeIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{Open: func(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) {
		d, address := newDialer(t, netip.Addr{}, nil)
		result := make(chan dialed, 1)
		go func() {
			c, err := d.Dial(t.Context(), f)
			result <- dialed{c, err}
		}()
		device := ring(t, <-address)
		return (<-result).must(t), far{device}
	}})
}

func TestDialWaitsForTheDeviceAndTalksToIt(t *testing.T) {
	d, address := newDialer(t, netip.MustParseAddr("127.0.0.1"), nil)
	waiting := dial(t, d)
	device := ring(t, <-address)
	conn := (<-waiting).must(t)
	say(t, device, "hello")
	expect(t, conn, "hello")
	if conn.Info().Remote != device.LocalAddr().String() {
		t.Errorf("%+v", conn.Info())
	}
	if s := d.Stats(); s != (Stats{Calls: 1}) {
		t.Errorf("%+v", s)
	}
}

func TestACallIsKeptForTheNextDial(t *testing.T) {
	d, address := newDialer(t, netip.Addr{}, nil)
	waiting := dial(t, d)
	at := <-address
	ring(t, at)
	if err := (<-waiting).must(t).Close(); err != nil {
		t.Fatal(err)
	}
	device := ring(t, at)
	say(t, device, "again")
	eventually(t, "the second call", func() bool { return d.Stats().Calls == 2 })
	expect(t, (<-dial(t, d)).must(t), "again")
	if s := d.Stats(); s.Replaced != 0 {
		t.Errorf("%+v", s)
	}
}

func TestADeviceThatCallsAgainReplacesItsOlderConnection(t *testing.T) {
	d, address := newDialer(t, netip.Addr{}, nil)
	waiting := dial(t, d)
	at := <-address
	ring(t, at)
	old := (<-waiting).must(t)
	read := make(chan error, 1)
	go func() {
		_, err := old.Read()
		read <- err
	}()
	device := ring(t, at)
	if err := <-read; !errors.Is(err, transport.ErrLost) || errors.Is(err, net.ErrClosed) {
		t.Errorf("the older connection: %v", err)
	}
	if err := old.Write(transporttest.Frame(nil)); !errors.Is(err, transport.ErrLost) {
		t.Errorf("writing to the older connection: %v", err)
	}
	say(t, device, "new")
	fresh := (<-dial(t, d)).must(t)
	expect(t, fresh, "new")
	if err := old.Close(); err != nil {
		t.Errorf("closing what was replaced: %v", err)
	}
	say(t, device, "still here")
	expect(t, fresh, "still here")
	if s := d.Stats(); s != (Stats{Calls: 2, Replaced: 1}) {
		t.Errorf("%+v", s)
	}
}

func TestACallerFromAnotherAddressIsHungUpOn(t *testing.T) {
	d, address := newDialer(t, netip.MustParseAddr("127.0.0.2"), nil)
	waiting := dial(t, d)
	at := <-address
	stranger := ring(t, at)
	if _, err := stranger.Read(make([]byte, 1)); err == nil {
		t.Error("it is answered")
	}
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	device, err := from.DialContext(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	conn := (<-waiting).must(t)
	ring(t, at)
	eventually(t, "both strangers", func() bool { return d.Stats() == Stats{Calls: 1, Foreign: 2} })
	say(t, device, "hello")
	expect(t, conn, "hello")
}

func TestACallerWithoutACertificateTakesNoLineOver(t *testing.T) {
	ca := transporttest.NewCA(t)
	d, address := newDialer(t, netip.Addr{}, ca.MutualServer())
	waiting := dial(t, d)
	at := <-address
	call := func(secure transport.TLS) transport.Conn {
		c, err := tcp.NewDialer(at, secure).Dial(t.Context(), framing())
		if err != nil {
			return nil
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	device := call(ca.Client("press-7"))
	conn := (<-waiting).must(t)
	if names := conn.Info().Names; len(names) == 0 || names[0] != "press-7" {
		t.Errorf("the caller is %q", names)
	}
	call(ca.Client())
	eventually(t, "the stranger", func() bool { return d.Stats().Foreign == 1 })
	silent := ring(t, at) // says nothing, and so never finishes its handshake
	if err := device.Write(transporttest.Frame([]byte("still here"))); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, "still here")
	silent.Close()
}

func TestManySilentCallersAreHungUpOn(t *testing.T) {
	ca := transporttest.NewCA(t)
	d, address := newDialer(t, netip.Addr{}, ca.MutualServer())
	dial(t, d)
	at := <-address
	for range maxHandshakes + 10 {
		ring(t, at)
	}
	eventually(t, "those too many", func() bool { return d.Stats().Busy == 10 })
}

func TestDialFailsWhenNobodyCallsInTime(t *testing.T) {
	d, _ := newDialer(t, netip.Addr{}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.Dial(ctx, framing()); !errors.Is(err, context.DeadlineExceeded) || err.Error() != "waits for the device to call on tcp 127.0.0.1" {
		t.Errorf("got %v", err)
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	d, address := newDialer(t, netip.Addr{}, nil)
	waiting := dial(t, d)
	<-address
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-waiting; !errors.Is(got.err, net.ErrClosed) {
		t.Errorf("the Dial that waited: %v", got.err)
	}
	if got := <-dial(t, d); !errors.Is(got.err, net.ErrClosed) {
		t.Errorf("a later Dial: %v", got.err)
	}
}

func TestAListenerThatFailsIsOpenedAgain(t *testing.T) {
	var opened []*transporttest.Exchange
	fail := errors.New("no such interface")
	d := New(Config{
		Endpoint: "memory", Log: slog.New(slog.DiscardHandler),
		Listen: func(_ context.Context, framers func() transport.Framer) (transport.Listener, error) {
			if fail != nil {
				return nil, fail
			}
			x := transporttest.NewExchange("line", framers)
			opened = append(opened, x)
			return x, nil
		},
	})
	defer d.Close()
	if got := <-dial(t, d); !errors.Is(got.err, fail) {
		t.Fatalf("got %v", got.err)
	}
	fail = nil
	opens := func(n int) func() bool {
		return func() bool {
			d.opening.Lock()
			defer d.opening.Unlock()
			return len(opened) == n
		}
	}
	lost := dial(t, d)
	eventually(t, "a listener", opens(1))
	opened[0].Close()
	if got := <-lost; !errors.Is(got.err, transport.ErrLost) {
		t.Fatalf("got %v", got.err)
	}
	waiting := dial(t, d)
	eventually(t, "another listener", opens(2))
	device, err := opened[1].Dial(t.Context(), framing())
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	if err := device.Write(transporttest.Frame([]byte("hello"))); err != nil {
		t.Fatal(err)
	}
	expect(t, (<-waiting).must(t), "hello")
}
