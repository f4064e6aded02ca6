package quic

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// Both ends say it in our words, whoever of them has found what is wrong.
func TestWhoIsNotTrustedIsRefusedInWordsAtBothEnds(t *testing.T) {
	ca, other := transporttest.NewCA(t), transporttest.NewCA(t)
	changed := func(from transport.TLS, change func(*tls.Config)) transport.TLS {
		c := from().Clone()
		change(c)
		return func() *tls.Config { return c }
	}
	stranger := other.Client("x")().Certificates[0]
	for _, c := range []struct {
		name           string
		server, client transport.TLS
		dialing        string
		listening      string // "": there is no Conn yet
	}{
		{"the client has no certificate", ca.MutualServer(), ca.Client(), "set cert and key", "the other side has shown no certificate, and client_ca demands one"},
		{"the client is of another CA", ca.MutualServer(), changed(ca.Client(), func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil }
		}), "does not accept our certificate", "authority that we do not trust"},
		{"the server is of another CA", other.Server(), ca.Client(), "authority that we do not trust", "does not accept our certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := Listen(t.Context(), "127.0.0.1:0", framers, c.server)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			dialed := make(chan error, 1)
			go func() {
				conn, err := NewDialer(l.socket.LocalAddr().String(), c.client).Dial(t.Context(), framers())
				if err == nil {
					_, err = conn.Read()
					conn.Close()
				}
				dialed <- err
			}()
			conn, err := l.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			for end, got := range map[string]struct {
				err  error
				want string
			}{"listening": {readError(conn), c.listening}, "dialing": {<-dialed, c.dialing}} {
				if !errors.Is(got.err, transport.ErrPermanent) || !strings.Contains(got.err.Error(), got.want) || strings.Contains(got.err.Error(), "CRYPTO_ERROR") {
					t.Errorf("the %s end: %v", end, got.err)
				}
			}
		})
	}
}

func readError(c transport.Conn) error {
	_, err := c.Read()
	return err
}
