package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestTheConnSurvivesANewAddressOfTheClient(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	r := newRelay(t, l)
	d.address = r.address()
	p := meet(t, l, d)
	before := p.accepted.Info()
	for n := range 3 {
		r.move()
		say(t, p.dialed, fmt.Sprint("from address ", n))
		hear(t, p.accepted, fmt.Sprint("from address ", n))
		say(t, p.accepted, fmt.Sprint("to address ", n))
		hear(t, p.dialed, fmt.Sprint("to address ", n))
	}
	if after := p.accepted.Info(); after.Remote != before.Remote {
		t.Errorf("Info has changed: it was %s, is %s", before.Remote, after.Remote)
	}
}

func TestEverythingArrivesInOrderThroughLoss(t *testing.T) {
	const count = 400
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	l.linger, d.linger = lingerTime, lingerTime
	r := newRelay(t, l)
	dice := rand.New(rand.NewPCG(1, 2))
	r.loses(func() bool { return dice.Float64() < 0.1 })
	d.address = r.address()
	p := meet(t, l, d)
	said := make(chan error, 1)
	go func() {
		for n := range count {
			if err := p.dialed.Write(transporttest.Frame(fmt.Appendf(make([]byte, 200), "%d", n))); err != nil {
				said <- err
				return
			}
		}
		said <- p.dialed.Close() // the last one arrives too
	}()
	for n := range count {
		hear(t, p.accepted, string(fmt.Appendf(make([]byte, 200), "%d", n)))
	}
	_ = p.accepted.SetReadDeadline(time.Now().Add(patience))
	_, err := p.accepted.Read()
	expectLost(t, err)
	p.accepted.Close()
	if err := <-said; err != nil {
		t.Error(err)
	}
}

func TestTheLastWordReachesThePeerAndCloseWaitsNoLongerThanItMust(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	l.linger, d.linger = lingerTime, lingerTime
	for range 20 {
		p := meet(t, l, d)
		began := time.Now()
		done := make(chan time.Duration, 1)
		go func() {
			say(t, p.accepted, "goodbye")
			p.accepted.Close()
			done <- time.Since(began)
		}()
		hear(t, p.dialed, "goodbye")
		_, err := p.dialed.Read()
		expectLost(t, err)
		p.dialed.Close()
		if took := <-done; took > lingerTime/2 {
			t.Errorf("Close took %v although the peer reacted", took)
		}
	}
}

func TestBothEndsCloseAtOnceWithoutWaiting(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	l.linger, d.linger = lingerTime, lingerTime
	p := meet(t, l, d)
	say(t, p.accepted, "unread")
	began := time.Now()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		p.accepted.Close()
	}()
	p.dialed.Close()
	<-closed
	if took := time.Since(began); took > lingerTime/2 {
		t.Errorf("it took %v", took)
	}
}

func TestAPeerThatVanishesIsLost(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	d.config.MaxIdleTimeout = time.Second
	d.config.KeepAlivePeriod = 300 * time.Millisecond
	r := newRelay(t, l)
	d.address = r.address()
	p := meet(t, l, d)
	r.loses(func() bool { return true })
	_ = p.dialed.SetReadDeadline(time.Now().Add(patience))
	_, err := p.dialed.Read()
	expectLost(t, err)
	expectLost(t, p.dialed.Write([]byte("x")))
}

func TestAPeerThatSaysNothingKeepsNobodyWaiting(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	client := ca.Client()().Clone()
	client.NextProtos = []string{ALPN}
	for range 3 {
		mute, err := quicgo.DialAddr(t.Context(), d.address, client, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer mute.CloseWithError(0, "")
	}
	for range 3 {
		c, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := c.Read(); !isDeadline(err) {
			t.Errorf("Read from one that opens no stream: %v", err)
		}
		_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		if err := c.Write([]byte("x")); !isDeadline(err) {
			t.Errorf("Write to one that opens no stream: %v", err)
		}
	}
	meet(t, l, d)
}

func TestManyHandshakesMakeTheListenerAskForProofOfTheAddress(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	ctx, cancel := context.WithCancel(context.Background())
	for n := range maxHandshakesEach {
		if many := l.handshakes.challenge(); many != (n >= manyHandshakes) {
			t.Fatalf("with %d under way: %v", n, many)
		}
		if _, err := l.handshakes.begin(ctx, &quicgo.ClientInfo{RemoteAddr: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.handshakes.begin(ctx, &quicgo.ClientInfo{RemoteAddr: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}}); err == nil {
		t.Error("one address may have all of them")
	}
	before := l.Stats()
	meet(t, l, d) // by way of Retry
	if got := l.Stats(); got.Refused != 1 || got.Failed != 0 || got.Challenged <= before.Challenged {
		t.Errorf("counted %+v, before %+v", got, before)
	}
	cancel()
	for giveUp := time.Now().Add(patience); l.handshakes.challenge(); {
		if time.Now().After(giveUp) {
			t.Fatal("handshakes that have ended still count")
		}
		<-time.After(time.Millisecond)
	}
}

func TestAnIPv6NetworkCountsAsOneAddress(t *testing.T) {
	var h handshakes
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	begin := func(address string) error {
		_, err := h.begin(ctx, &quicgo.ClientInfo{RemoteAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address))})
		return err
	}
	for n := range maxHandshakesEach {
		if err := begin(fmt.Sprintf("[2001:db8:0:1::%x]:443", n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin("[2001:db8:0:1:ffff::]:443"); err == nil {
		t.Error("another address of the same /64 is another peer")
	}
	for _, other := range []string{"[2001:db8:0:2::1]:443", "192.0.2.1:443", "[::ffff:192.0.2.2]:443", "[fe80::1%lo]:443"} {
		if err := begin(other); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
}

func TestHandshakesThatAreCompleteDoNotCount(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	for range 3 {
		meet(t, l, d)
	}
	for giveUp := time.Now().Add(patience); ; {
		l.handshakes.mu.Lock()
		all, from := l.handshakes.all, len(l.handshakes.from)
		l.handshakes.mu.Unlock()
		if all == 0 && from == 0 {
			return
		}
		if time.Now().After(giveUp) {
			t.Fatalf("%d are still under way, from %d addresses", all, from)
		}
		<-time.After(time.Millisecond)
	}
}

func TestTheNamesAreThoseOfTheVerifiedCertificate(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.MutualServer(), ca.Client("press-7", "urn:edge:press-7"))
	p := meet(t, l, d)
	if names := p.accepted.Info().Names; !slices.Equal(names, []string{"press-7", "urn:edge:press-7"}) {
		t.Errorf("of the client: %q", names)
	}
	if names := p.dialed.Info().Names; !slices.Contains(names, transporttest.ServerName) {
		t.Errorf("of the server: %q", names)
	}
	select {
	case <-p.accepted.Info().Confirmed:
	case <-time.After(patience):
		t.Error("not confirmed after the handshake")
	}
}

func TestTLSThatCanNotSucceedIsPermanent(t *testing.T) {
	ca, stranger := transporttest.NewCA(t), transporttest.NewCA(t)
	otherALPN := func() *tls.Config { return nil }
	for _, c := range []struct {
		name   string
		client transport.TLS
		want   string
	}{
		{"no TLS", nil, "configure tls"},
		{"no configuration", otherALPN, "no TLS configuration"},
		{"an authority that the client does not know", stranger.Client(), "put the certificate of its CA"},
	} {
		_, d := ends(t, ca.Server(), c.client)
		_, err := d.Dial(t.Context(), framers())
		if !errors.Is(err, transport.ErrPermanent) || errors.Is(err, net.ErrClosed) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Listen(t.Context(), "127.0.0.1:0", framers, nil); !errors.Is(err, transport.ErrPermanent) {
		t.Errorf("Listen without TLS: %v", err)
	}
}

func TestAClientWithoutItsCertificateIsRefusedWithTheReason(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.MutualServer(), ca.Client())
	dialed, err := d.Dial(t.Context(), framers())
	if err == nil { // the client's handshake is over before the server looks
		defer dialed.Close()
		_ = dialed.SetReadDeadline(time.Now().Add(patience))
		_, err = dialed.Read()
	}
	if !errors.Is(err, transport.ErrLost) || !errors.Is(err, transport.ErrPermanent) || !strings.Contains(err.Error(), "client certificate") {
		t.Errorf("the client: %v", err)
	}
	accepted, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	_ = accepted.SetReadDeadline(time.Now().Add(patience))
	_, err = accepted.Read()
	expectLost(t, err)
	if names := accepted.Info().Names; len(names) > 0 {
		t.Errorf("the names are %q", names)
	}
}

func TestAnotherProtocolIsRefused(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := ends(t, ca.Server(), ca.Client())
	client := ca.Client()().Clone()
	client.NextProtos = []string{"h3"}
	_, err := quicgo.DialAddr(t.Context(), d.address, client, nil)
	if !errors.Is(translate(err), transport.ErrPermanent) {
		t.Errorf("dialing with h3: %v", err)
	}
	for giveUp := time.Now().Add(patience); l.Stats().Failed != 1; {
		if time.Now().After(giveUp) {
			t.Fatalf("counted %+v", l.Stats())
		}
		<-time.After(time.Millisecond)
	}
}

func TestATakenPortIsPermanent(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, _ := ends(t, ca.Server(), nil)
	_, err := Listen(t.Context(), l.socket.LocalAddr().String(), framers, ca.Server())
	if !errors.Is(err, transport.ErrPermanent) {
		t.Errorf("Listen: %v", err)
	}
}

func TestAnAddressThatIsNoneIsPermanent(t *testing.T) {
	ca := transporttest.NewCA(t)
	for _, address := range []string{"127.0.0.1", "127.0.0.1:1:2", "[::1"} {
		if _, err := NewDialer(address, ca.Client()).Dial(t.Context(), framers()); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("Dial %s: %v", address, err)
		}
		if _, err := Listen(t.Context(), address, framers, ca.Server()); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("Listen %s: %v", address, err)
		}
	}
}

func TestNoErrorOfThePeersReadsLikeOurOwnClose(t *testing.T) {
	for _, err := range []error{
		&quicgo.IdleTimeoutError{}, &quicgo.HandshakeTimeoutError{}, &quicgo.StatelessResetError{},
		&quicgo.VersionNegotiationError{}, &quicgo.ApplicationError{Remote: true},
		&quicgo.ApplicationError{Remote: true, ErrorMessage: "enough"}, &quicgo.StreamError{Remote: true},
		&quicgo.TransportError{Remote: true, ErrorCode: quicgo.ProtocolViolation},
		&quicgo.TransportError{ErrorCode: quicgo.ConnectionRefused},
		&quicgo.TransportError{Remote: true, ErrorCode: 0x100 + 42},
		quicgo.ErrTransportClosed, net.ErrClosed, errors.New("anything"),
	} {
		got := translate(err)
		if !errors.Is(got, transport.ErrLost) || errors.Is(got, net.ErrClosed) || isDeadline(got) {
			t.Errorf("%v became %v", err, got)
		}
	}
}

func isDeadline(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
