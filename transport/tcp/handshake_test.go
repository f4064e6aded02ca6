package tcp

import (
	"bytes"
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

// with changes a copy of a configuration.
func with(given transport.TLS, change func(*tls.Config)) transport.TLS {
	c := given().Clone()
	change(c)
	return func() *tls.Config { return c }
}

func TestACertificatesNamesAreKnownOnceTheHandshakeIsOver(t *testing.T) {
	ca := transporttest.NewCA(t)
	conn, peer := acceptTLS(t, ca.MutualServer(), ca.Client("press-7", "urn:plant:press-7"), framers())
	defer conn.Close()
	defer peer.Close()
	if names := conn.Info().Names; names != nil {
		t.Errorf("before the handshake the names are %q", names)
	}
	go func() { _, _ = peer.Write(transporttest.Frame([]byte("hello"))) }()
	if _, err := conn.Read(); err != nil {
		t.Fatal(err)
	}
	if names := conn.Info().Names; !slices.Equal(names, []string{"press-7", "urn:plant:press-7"}) {
		t.Errorf("the client's names are %q", names)
	}

	dialed, server := openDialedTLS(t, ca.Server(), ca.Client(), framers())
	defer dialed.Close()
	defer server.Close()
	if names := dialed.Info().Names; !slices.Contains(names, transporttest.ServerName) {
		t.Errorf("the server's names are %q", names)
	}
}

func TestWithoutACertificateThereAreNoNames(t *testing.T) {
	ca := transporttest.NewCA(t)
	conn, peer := openAcceptedTLS(t, ca.Server(), ca.Client(), framers())
	defer conn.Close()
	defer peer.Close()
	if names := conn.Info().Names; len(names) != 0 {
		t.Errorf("the names are %q", names)
	}
}

func TestADialThatTLSRefusesSaysWhatToDo(t *testing.T) {
	ca := transporttest.NewCA(t)
	stranger := transporttest.NewCA(t)
	inTwoDays := func() time.Time { return time.Now().Add(48 * time.Hour) }
	for _, c := range []struct {
		name           string
		server, client transport.TLS
		want           string
	}{
		{"an authority that we don't trust", stranger.Server(), ca.Client(), "put the certificate of its CA into ca"},
		{"an expired certificate", ca.Server(), with(ca.Client(), func(c *tls.Config) { c.Time = inTwoDays }), "renew it, or set the clock"},
		{"another name", ca.Server(), with(ca.Client(), func(c *tls.Config) { c.ServerName = "other.test" }), `not for "other.test" but for server.test`},
		{
			"a client's certificate", with(ca.Server(), func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ca.Certificate(x509.ExtKeyUsageClientAuth, transporttest.ServerName)}
			}), ca.Client(), "extended key usage",
		},
		{"TLS 1.2 alone", with(ca.Server(), func(c *tls.Config) { c.MinVersion, c.MaxVersion = 0, tls.VersionTLS12 }), ca.Client(), "does not speak TLS 1.3"},
		{"no configuration", ca.Server(), func() *tls.Config { return nil }, "there is no TLS configuration"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if peer, err := l.Accept(); err == nil {
				_ = tls.Server(peer, c.server()).Handshake()
				peer.Close()
			}
		}()
		_, err = NewDialer(l.Addr().String(), c.client).Dial(t.Context(), framers())
		l.Close()
		if !errors.Is(err, transport.ErrPermanent) || errors.Is(err, transport.ErrLost) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAServerWithoutTLSIsNotDialed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if peer, err := l.Accept(); err == nil {
			_, _ = peer.Write([]byte("220 here is no TLS\r\n"))
			defer peer.Close()
			_, _ = peer.Read(make([]byte, 1))
		}
	}()
	_, err = NewDialer(l.Addr().String(), transporttest.NewCA(t).Client()).Dial(t.Context(), framers())
	if !errors.Is(err, transport.ErrPermanent) || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("Dial: %v", err)
	}
}

// In TLS 1.3 a client is done before the server has looked at its certificate,
// so that is told to the first Read.
func TestAClientWhoseCertificateIsRefusedReadsWhy(t *testing.T) {
	ca := transporttest.NewCA(t)
	for name, c := range map[string]struct {
		client transport.TLS
		want   string
	}{
		"none": {ca.Client(), "wants a client certificate: set cert and key"},
		"of another authority": {with(ca.Client(), func(c *tls.Config) {
			foreign := transporttest.NewCA(t).Client("press-7")().Certificates[0]
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign, nil }
		}), "does not accept our certificate"},
	} {
		l, d := listenTLS(t, framers, ca.MutualServer(), c.client)
		served := make(chan error)
		go func() {
			conn, err := l.Accept(t.Context())
			if err == nil {
				_, err = conn.Read()
				conn.Close()
			}
			served <- err
		}()
		conn, err := d.Dial(t.Context(), framers())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Write(transporttest.Frame([]byte("said before the refusal can be known")))
		_, err = conn.Read()
		if !errors.Is(err, transport.ErrLost) || !errors.Is(err, transport.ErrPermanent) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the client read %v", name, err)
		}
		if err := <-served; !errors.Is(err, transport.ErrLost) {
			t.Errorf("%s: the server read %v", name, err)
		}
		conn.Close()
		l.Close()
	}
}

func TestAPeerThatDoesNotSpeakTLS13IsLost(t *testing.T) {
	ca := transporttest.NewCA(t)
	for name, speak := range map[string]func(net.Conn){
		"TLS 1.2": func(c net.Conn) {
			_ = tls.Client(c, with(ca.Client(), func(c *tls.Config) { c.MinVersion, c.MaxVersion = 0, tls.VersionTLS12 })()).Handshake()
		},
		"TLS 1.0": func(c net.Conn) {
			_ = tls.Client(c, with(ca.Client(), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 })()).Handshake()
		},
		"no TLS":     func(c net.Conn) { _, _ = c.Write(transporttest.Frame([]byte("hello"))) },
		"half a one": func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 2, 0, 1}) },
		"a lie about the length": func(c net.Conn) {
			_, _ = c.Write(append([]byte{22, 3, 1, 0xff, 0xff}, make([]byte, 1<<16)...))
		},
		"nothing": func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			// Even if the configuration would allow it.
			lax := with(ca.Server(), func(c *tls.Config) { c.MinVersion = tls.VersionTLS10 })
			conn, peer := acceptTLS(t, lax, ca.Client(), framers())
			defer conn.Close()
			go func() {
				speak(peer.NetConn())
				peer.NetConn().Close()
			}()
			for range 2 {
				if _, err := conn.Read(); !errors.Is(err, transport.ErrLost) {
					t.Errorf("Read: %v", err)
				}
			}
			if err := conn.Write([]byte("x")); !errors.Is(err, transport.ErrLost) {
				t.Errorf("Write: %v", err)
			}
		})
	}
}

func TestADeadlineDoesNotBreakAHandshakeOff(t *testing.T) {
	ca := transporttest.NewCA(t)
	conn, peer := acceptTLS(t, ca.Server(), ca.Client(), framers())
	defer conn.Close()
	defer peer.Close()
	for range 2 {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		if _, err := conn.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("while the peer says nothing: %v", err)
		}
	}
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
	_ = conn.SetReadDeadline(time.Time{})
	msg := transporttest.Frame([]byte("late"))
	go func() { _, _ = peer.Write(msg) }()
	if got, err := conn.Read(); !bytes.Equal(got, msg) {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestCloseDoesNotWaitForAPeerThatReadsNothing(t *testing.T) {
	ca := transporttest.NewCA(t)
	conn, peer := openAcceptedTLS(t, ca.Server(), ca.Client(), framers())
	defer peer.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	for conn.Write(make([]byte, 1<<20)) == nil { // until the kernel holds all it takes
	}
	began := time.Now()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*farewell {
		t.Errorf("Close took %v", took)
	}
}

func TestCloseEndsAHandshake(t *testing.T) {
	ca := transporttest.NewCA(t)
	conn, peer := acceptTLS(t, ca.Server(), ca.Client(), framers())
	defer peer.Close()
	_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := conn.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := conn.Read(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
}

func TestASessionIsResumed(t *testing.T) {
	ca := transporttest.NewCA(t)
	l, d := listenTLS(t, framers, ca.MutualServer(), with(ca.Client("press-7"), func(c *tls.Config) {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}))
	defer l.Close()
	for round := range 2 {
		accepted := make(chan transport.Conn)
		go func() {
			c, err := l.Accept(t.Context())
			if err == nil {
				_ = c.Write(transporttest.Frame([]byte("hello"))) // behind the ticket
			}
			accepted <- c
		}()
		conn, err := d.Dial(t.Context(), framers())
		if err != nil {
			t.Fatal(err)
		}
		server := <-accepted
		if _, err := conn.Read(); err != nil {
			t.Fatal(err)
		}
		if resumed := conn.(*secureConn).stream.tls.ConnectionState().DidResume; resumed != (round == 1) {
			t.Errorf("connection %d is resumed: %v", round, resumed)
		}
		if names := server.Info().Names; !slices.Equal(names, []string{"press-7"}) {
			t.Errorf("connection %d: the client's names are %q", round, names)
		}
		conn.Close()
		server.Close()
	}
}
