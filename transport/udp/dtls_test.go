package udp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// relayed is a DTLS session through a relay.
func relayed(t *testing.T, ca *transporttest.CA) (r *relay, l *Listener, dialed, accepted transport.Conn) {
	t.Helper()
	l, _ = listenAndDial(t, Config{TLS: ca.MutualServer()}, Config{})
	t.Cleanup(func() { l.Close() })
	r = newRelay(t, l.local)
	dialed, accepted = meet(t, l, NewDialer(r.address(), Config{TLS: ca.Client("client")}))
	t.Cleanup(func() {
		dialed.Close()
		accepted.Close()
	})
	return r, l, dialed, accepted
}

// meet makes a session; both its ends are open and have seen the handshake end.
func meet(t testing.TB, l *Listener, d *Dialer) (dialed, accepted transport.Conn) {
	t.Helper()
	type result struct {
		conn transport.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		c, err := d.Dial(t.Context(), nil)
		if err == nil {
			err = c.Write([]byte("first"))
		}
		done <- result{c, err}
	}()
	accepted = accept(t, l)
	expect(t, accepted, "first")
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.conn, accepted
}

func write(t testing.TB, c transport.Conn, msg string) {
	t.Helper()
	if err := c.Write([]byte(msg)); err != nil {
		t.Fatal(err)
	}
}

// expectNothing waits a little.
func expectNothing(t testing.TB, c transport.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if msg, err := c.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Read: %q, %v", msg, err)
	}
}

func TestASessionGoesOnWhenTheClientsAddressChanges(t *testing.T) {
	r, l, dialed, accepted := relayed(t, transporttest.NewCA(t))
	for range 3 {
		r.rebind()
		for range 2 { // the library moves on after it has delivered the first
			write(t, dialed, "from elsewhere")
			expect(t, accepted, "from elsewhere")
		}
		write(t, accepted, "to elsewhere")
		expect(t, dialed, "to elsewhere")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.routes) != 1 || len(l.ids) != 1 {
		t.Errorf("%d addresses and %d connection IDs are left", len(l.routes), len(l.ids))
	}
}

func TestAForgedRecordDoesNotMoveASession(t *testing.T) {
	r, l, dialed, accepted := relayed(t, transporttest.NewCA(t))
	write(t, dialed, "honest")
	expect(t, accepted, "honest")
	stranger, err := net.Dial("udp", l.local)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	replayed := r.last() // a record that was seen already
	forged := slices.Clone(replayed)
	forged[10] += 100             // a later sequence number
	forged[len(forged)-1] ^= 0xFF // and a tag that can't be right
	for _, d := range [][]byte{replayed, forged} {
		if _, err := stranger.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	expectNothing(t, accepted)
	write(t, accepted, "still to the client")
	expect(t, dialed, "still to the client")
}

func TestReplayedRecordsAreDroppedAndReorderedOnesAreNot(t *testing.T) {
	r, _, dialed, accepted := relayed(t, transporttest.NewCA(t))
	var held [][]byte
	r.onTheWayUp(func(d []byte) [][]byte {
		held = append(held, d)
		if len(held) < 3 {
			return nil
		}
		slices.Reverse(held)
		return slices.Concat(held, held, held)
	})
	for _, msg := range []string{"1", "2", "3"} {
		write(t, dialed, msg)
	}
	for _, msg := range []string{"3", "2", "1"} {
		expect(t, accepted, msg)
	}
	expectNothing(t, accepted)
}

func TestUnencryptedRecordsDoNotHurtASession(t *testing.T) {
	r, _, dialed, accepted := relayed(t, transporttest.NewCA(t))
	for _, d := range [][]byte{
		{23, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 9, 9, 0, 1, 'x'},             // data
		{21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 9, 9, 0, 2, 2, 40},           // handshake_failure
		{21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 9, 9, 0, 2, 1, 0},            // close_notify
		{99, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 9, 9, 0, 1, 0},               // no content type
		{20, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 9, 9, 0, 1, 7},               // a bad change of ciphers
		{22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 9, 9, 0, 3, 1, 2, 3},         // half a handshake header
		{24, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 9, 9, 0, 5, 1, 0, 16, 0, 0},  // a heartbeat
		{25, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 9, 9, 1, 2, 3, 4, 5, 6, 7},   // no session's
		{22, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 9, 9, 0, 4, 1, 2, 3, 4, 255}, // bad encryption
	} {
		r.inject(d)
	}
	write(t, dialed, "unhurt")
	expect(t, accepted, "unhurt")
	write(t, accepted, "unhurt")
	expect(t, dialed, "unhurt")
}

func TestAClientThatBeginsAnewAtItsAddressIsServed(t *testing.T) {
	ca := transporttest.NewCA(t)
	r, l, first, _ := relayed(t, ca)
	_ = first // it has lost its memory, and its port is taken by the next
	second, accepted := meet(t, l, NewDialer(r.address(), Config{TLS: ca.Client("client")}))
	defer second.Close()
	defer accepted.Close()
	write(t, accepted, "welcome back")
	expect(t, second, "welcome back")
}

func TestTheHandshakeTellsThePeersNames(t *testing.T) {
	ca := transporttest.NewCA(t)
	dialed, accepted := secureEnds(t, Config{TLS: ca.MutualServer()}, Config{TLS: ca.Client("gw-01", "spiffe://plant/gw-01")})
	defer dialed.Close()
	defer accepted.Close()
	if got, want := accepted.Info().Names, []string{"gw-01", "spiffe://plant/gw-01"}; !slices.Equal(got, want) {
		t.Errorf("the client's names are %q, want %q", got, want)
	}
	if got := dialed.Info().Names; !slices.Contains(got, transporttest.ServerName) {
		t.Errorf("the server's names are %q", got)
	}
}

func TestWritingNothingFinishesTheHandshakeAndSendsNothing(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := listenAndDial(t, Config{TLS: ca.MutualServer()}, Config{TLS: ca.Client("client")})
	defer l.Close()
	dialed := make(chan transport.Conn, 1)
	go func() {
		c, err := d.Dial(t.Context(), nil)
		if err != nil {
			t.Error(err)
		}
		dialed <- c
	}()
	accepted := accept(t, l)
	defer accepted.Close()
	if err := accepted.Write(nil); err != nil {
		t.Fatal(err)
	}
	if got := accepted.Info().Names; !slices.Contains(got, "client") {
		t.Errorf("the client's names are %q", got)
	}
	c := <-dialed
	if c == nil {
		return
	}
	defer c.Close()
	write(t, accepted, "welcome")
	expect(t, c, "welcome")
}

func TestWritingNothingFailsWithTheHandshake(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := listenAndDial(t, Config{TLS: ca.MutualServer()}, Config{TLS: ca.Client()})
	defer l.Close()
	refused := make(chan error, 1)
	go func() {
		_, err := d.Dial(t.Context(), nil)
		refused <- err
	}()
	accepted := accept(t, l)
	defer accepted.Close()
	if err := accepted.Write(nil); !errors.Is(err, transport.ErrLost) {
		t.Errorf("Write: %v", err)
	}
	if err := <-refused; err == nil {
		t.Error("the client is let in")
	}
}

func TestACertificateThatNobodyVerifiedGivesNoNames(t *testing.T) {
	ca := transporttest.NewCA(t)
	asking := changed(ca.Server(), func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
	dialed, accepted := secureEnds(t, Config{TLS: asking}, Config{TLS: transporttest.NewCA(t).Client("liar")},
		func(c *Config) {
			c.TLS = changed(c.TLS, func(c *tls.Config) { c.InsecureSkipVerify = true })
		})
	defer dialed.Close()
	defer accepted.Close()
	if a, d := accepted.Info().Names, dialed.Info().Names; len(a)+len(d) > 0 {
		t.Errorf("names: %q, %q", a, d)
	}
}

// changed is a TLS with one thing different.
func changed(from transport.TLS, change func(*tls.Config)) transport.TLS {
	c := from().Clone()
	change(c)
	return func() *tls.Config { return c }
}

func TestWhoIsNotTrustedIsRefusedAtBothEnds(t *testing.T) {
	ca, other := transporttest.NewCA(t), transporttest.NewCA(t)
	withOwn := func(c *tls.Config) { c.RootCAs = ca.Client()().RootCAs }
	veto := errors.New("vetoed")
	for _, c := range []struct {
		name           string
		server, client transport.TLS
		says           string // the dialing end
		hears          string // the listening end
	}{
		{"the server is of another CA", other.Server(), ca.Client(), "authority that we do not trust", "does not accept our certificate"},
		{"the client is of another CA", ca.MutualServer(), changed(other.Client("x"), withOwn), "does not accept our certificate", "authority that we do not trust"},
		{"the client has no certificate", ca.MutualServer(), ca.Client(), "set cert and key", "the other side has shown no certificate, and client_ca demands one"},
		{"the server has another name", ca.Server(), changed(ca.Client(), func(c *tls.Config) { c.ServerName = "other.test" }), "other.test", "does not accept our certificate"},
		{"the client's own check fails", ca.Server(), changed(ca.Client(), func(c *tls.Config) {
			c.VerifyConnection = func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) == 0 || len(s.VerifiedChains) == 0 {
					return errors.New("no certificates to check")
				}
				return veto
			}
		}), "vetoed", "does not accept our certificate"},
		{"the server's own check fails", changed(ca.MutualServer(), func(c *tls.Config) {
			c.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return veto }
		}), ca.Client("x"), "does not accept our certificate", "the DTLS handshake failed: vetoed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, d := listenAndDial(t, Config{TLS: c.server}, Config{TLS: c.client})
			defer l.Close()
			failed := make(chan error, 1)
			go func() {
				conn, err := d.Dial(t.Context(), nil)
				if err == nil {
					conn.Close()
				}
				failed <- err
			}()
			accepted := accept(t, l)
			defer accepted.Close()
			msg, err := accepted.Read()
			if !errors.Is(err, transport.ErrLost) || errors.Is(err, transport.ErrPermanent) || !strings.Contains(err.Error(), c.hears) {
				t.Errorf("the listening end: %q, %v", msg, err)
			}
			err = <-failed
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the dialing end: %v", err)
			}
			if settled := errors.Is(err, transport.ErrPermanent); settled == (c.says == "vetoed") {
				t.Errorf("%v is permanent: %v", err, settled)
			}
			if len(accepted.Info().Names) > 0 {
				t.Errorf("a peer that was refused has the names %q", accepted.Info().Names)
			}
		})
	}
}

func TestNoTextOfTheLibraryIsLeftBare(t *testing.T) {
	for text, want := range map[string]string{
		"dtls fatal: server required client verification, but got none":                                  "has shown no certificate, and client_ca demands one",
		"dtls fatal: client sent certificate but did not verify it":                                      "has not proven",
		"dtls fatal: no certificate provided":                                                            "has shown no certificate",
		"dtls fatal: unsupported protocol version":                                                       "does not speak DTLS 1.2",
		"dtls fatal: client required Extended Master Secret extension, but server does not support it":   "RFC 7627",
		"dtls fatal: client+server do not support any shared cipher suites":                              "nothing in common (client+server",
		"dtls fatal: client requested zero or more elliptic curves that are not supported by the server": "nothing in common",
		"dtls fatal: connection can not be created, no SignatureScheme satisfy this Config":              "nothing in common",
		"dtls fatal: certificate chain is not signed by an acceptable CA":                                "one that it trusts",
		"dtls internal: handshake cache overflow":                                                        "the DTLS handshake failed: handshake cache overflow",
	} {
		if got, _ := explain(errors.New("handshake error: " + text)); !strings.Contains(got, want) || strings.Contains(got, "dtls ") {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func TestADialThatNobodyAnswersSaysWhatToCheck(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = NewDialer(silent.LocalAddr().String(), Config{TLS: transporttest.NewCA(t).Client()}).Dial(ctx, nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer: check the address") {
		t.Errorf("got %v", err)
	}
}

func TestAConfigurationThatCannotWorkIsPermanent(t *testing.T) {
	none := func() *tls.Config { return nil }
	empty := func() *tls.Config { return &tls.Config{} }
	foreign := func() *tls.Config {
		return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }}
	}
	for _, secure := range []transport.TLS{none, empty, foreign} {
		_, err := Listen(t.Context(), "127.0.0.1:0", Config{TLS: secure})
		if !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("Listen: %v", err)
		}
	}
	for _, secure := range []transport.TLS{none, foreign} {
		if _, err := NewDialer("127.0.0.1:1", Config{TLS: secure}).Dial(t.Context(), nil); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("Dial: %v", err)
		}
	}
}

func TestCertificatesMayComeFromCallbacks(t *testing.T) {
	ca := transporttest.NewCA(t)
	server := changed(ca.MutualServer(), func(c *tls.Config) {
		own := c.Certificates[0]
		c.Certificates = nil
		c.GetCertificate = func(i *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if i.ServerName != transporttest.ServerName {
				t.Errorf("the server is asked for as %q", i.ServerName)
			}
			return &own, i.SupportsCertificate(&own)
		}
	})
	client := changed(ca.Client("client"), func(c *tls.Config) {
		own := c.Certificates[0]
		c.Certificates = nil
		c.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &own, i.SupportsCertificate(&own)
		}
	})
	dialed, accepted := secureEnds(t, Config{TLS: server}, Config{TLS: client})
	defer dialed.Close()
	defer accepted.Close()
	if got := accepted.Info().Names; !slices.Contains(got, "client") {
		t.Errorf("the client's names are %q", got)
	}
}

func TestAPeerThatNeverFinishesItsHandshakeDelaysNobody(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := listenAndDial(t, Config{TLS: ca.Server()}, Config{TLS: ca.Client()})
	defer l.Close()
	r := newRelay(t, l.local)
	r.onTheWayDown(func(b []byte) [][]byte {
		if _, ok := parseVerifyRequest(b); ok {
			return [][]byte{b}
		}
		return nil // the server's certificate never arrives
	})
	stuck := make(chan error, 1)
	go func() {
		c, err := NewDialer(r.address(), Config{TLS: ca.Client()}).Dial(t.Context(), nil)
		if err == nil {
			c.Close()
		}
		stuck <- err
	}()
	slow := accept(t, l)
	_ = slow.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_ = slow.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := slow.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	if err := slow.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	dialed, accepted := meet(t, l, d)
	dialed.Close()
	accepted.Close()

	r.onTheWayDown(nil) // now it does, when it is sent again
	_ = slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := slow.Read(); !errors.Is(err, transport.ErrLost) { // the client hangs up at once
		t.Errorf("Read: %v", err)
	}
	if err := <-stuck; err != nil {
		t.Error(err)
	}
	slow.Close()
}
