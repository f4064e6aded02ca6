package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/quic"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// mutualTLS is the tls table of a listener that demands certificates of ca.
func mutualTLS(t *testing.T, ca *transporttest.CA) string {
	t.Helper()
	file := caFiles(t, ca)
	return fmt.Sprintf("tls = { cert = %q, key = %q, client_ca = %q }\n", file("server.crt"), file("server.key"), file("ca.crt"))
}

// caFiles are those of transporttest's Files.
func caFiles(t *testing.T, ca *transporttest.CA) (file func(name string) string) {
	t.Helper()
	dir := t.TempDir()
	ca.Files(dir)
	return func(name string) string { return filepath.Join(dir, name) }
}

// openSSL is a client that waits for the other side to end the connection, and
// returns what it has to say of it.
func openSSL(t *testing.T, address string, options ...string) (said string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", address}, options...)...)
	if _, err := cmd.StdinPipe(); err != nil { // it ends when its input does
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("it was not hung up on: %w", ctx.Err())
	}
	return string(out), err
}

// handshakeFailed counts connections whose handshake failed.
var handshakeFailed = rise{refusedFor("tls"), 1}

func TestAGoodDeviceOnTLSDoesNotFeelAttacks(t *testing.T) {
	ca := transporttest.NewCA(t)
	for _, c := range []struct {
		kind   string
		dialer func(address string) transport.Dialer
		ordeal ordeal
	}{
		{
			"tcp", func(address string) transport.Dialer { return tcp.NewDialer(address, ca.Client("good")) },
			ordeal{attack: "handshakes with a foreign certificate", counts: []rise{{refusedFor("tls"), 100}}},
		},
		{
			"udp", func(address string) transport.Dialer {
				return udp.NewDialer(address, udp.Config{TLS: ca.Client("good")})
			},
			ordeal{attack: "forged DTLS hellos", counts: []rise{{refusedFor("address_unproven"), 1000}}},
		},
		{
			"quic", func(address string) transport.Dialer { return quic.NewDialer(address, ca.Client("good")) },
			ordeal{attack: "QUIC handshakes with a foreign certificate", counts: []rise{{refusedFor("tls"), 50}}},
		},
		{
			"quic", func(address string) transport.Dialer { return quic.NewDialer(address, ca.Client("good")) },
			ordeal{attack: "forged QUIC hellos"},
		},
	} {
		a, address := besieged(t, c.kind, mutualTLS(t, ca)+impatient)
		dialer := c.dialer(address)
		good := newGoodDevice(t, mcp.Config{Name: "good"}, dialer)
		good.feelsNothing(t, a, address, nil, c.ordeal)
	}
}

func TestOpenSSLIsRefusedWithoutTheRightCertificateAndVersion(t *testing.T) {
	ca, other := transporttest.NewCA(t), transporttest.NewCA(t)
	good, foreign := caFiles(t, ca), caFiles(t, other)
	with := func(file func(string) string, options ...string) []string {
		return append(options, "-cert", file("client.crt"), "-key", file("client.key"))
	}
	const weak = "DEFAULT:@SECLEVEL=0" // else OpenSSL itself refuses what is so old
	type refusal struct {
		what    string
		options []string
		alert   string
		counted rise
	}
	for kind, refusals := range map[string][]refusal{
		"tcp": {
			{"a certificate of another CA", with(foreign), "unknown ca", handshakeFailed},
			{"no certificate", nil, "certificate required", handshakeFailed},
			{"TLS 1.2", with(good, "-tls1_2"), "protocol version", handshakeFailed},
			{"TLS 1.1", with(good, "-tls1_1", "-cipher", weak), "protocol version", handshakeFailed},
			{"TLS 1.0", with(good, "-tls1", "-cipher", weak), "protocol version", handshakeFailed},
		},
		"udp": {
			{"a certificate of another CA", with(foreign, "-dtls1_2"), "bad certificate", handshakeFailed},
			{"no certificate", []string{"-dtls1_2"}, "no certificate", handshakeFailed},
			{"DTLS 1.0", with(good, "-dtls1", "-cipher", weak), "protocol version", rise{refusedFor("address_unproven"), 1}},
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a, address, _ := plant(t, kind, mutualTLS(t, ca))
			dialers := map[string]transport.Dialer{
				"tcp": tcp.NewDialer(address, ca.Client("good")),
				"udp": udp.NewDialer(address, udp.Config{TLS: ca.Client("good")}),
			}
			device := newGoodDevice(t, mcp.Config{Name: "good"}, dialers[kind])
			for _, r := range refusals {
				counted := a.risen(r.counted)
				said, err := openSSL(t, address, r.options...)
				if err == nil || !strings.Contains(said, r.alert) {
					t.Errorf("%s: %v: %s", r.what, err, tail(said, 500))
				}
				eventually(t, patience, r.what+" to be counted", counted)
				device.publish(t)
			}
			device.isWell(t)
		})
	}
}

func TestAPeerOnQUICIsRefusedWithoutTheRightCertificate(t *testing.T) {
	t.Parallel()
	ca, other := transporttest.NewCA(t), transporttest.NewCA(t)
	a, address, _ := plant(t, "quic", mutualTLS(t, ca))
	device := newGoodDevice(t, mcp.Config{Name: "good"}, quic.NewDialer(address, ca.Client("good")))
	foreign := func() *tls.Config { // trusts the server, and shows another's certificate
		c := ca.Client()().Clone()
		c.Certificates = []tls.Certificate{other.Certificate(x509.ExtKeyUsageClientAuth, "press-7")}
		return c
	}
	for what, config := range map[string]transport.TLS{"a certificate of another CA": foreign, "no certificate": ca.Client()} {
		counted := a.risen(handshakeFailed)
		if _, err := join(t, quic.NewDialer(address, config), mcp.Config{Name: "press-7"}); err == nil {
			t.Errorf("%s: the session was opened", what)
		}
		eventually(t, patience, what+" to be counted", counted)
		device.publish(t)
	}
	device.isWell(t)
	if peers := a.peers(); len(peers) != 1 {
		t.Errorf("the peers are %v", peers)
	}
}

func TestACertificateSpeaksOnlyForItsName(t *testing.T) {
	t.Parallel()
	ca := transporttest.NewCA(t)
	a, address, _ := plant(t, "tcp", mutualTLS(t, ca))
	counted := a.risen(rise{refusedFor("not_allowed"), 1})
	if _, err := join(t, tcp.NewDialer(address, ca.Client("press-7")), mcp.Config{Name: "press-8"}); !mcp.IsCode(err, mcp.CodeNotAllowed) {
		t.Errorf("press-8 with the certificate of press-7: %v", err)
	}
	eventually(t, patience, "it to be counted", counted)
	if _, err := join(t, tcp.NewDialer(address, ca.Client("press-7")), mcp.Config{Name: "press-7"}); err != nil {
		t.Error(err)
	}
}

// join connects, leaves again, and returns how long it took to be welcomed, or
// why that did not happen.
func join(t *testing.T, dialer transport.Dialer, cfg mcp.Config) (time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	conn, err := dialer.Dial(ctx, mcp.NewStreamFramer(0, 0))
	if err != nil {
		return 0, err
	}
	cfg.Epoch = mcp.NewEpoch()
	s := mcp.NewSession(conn, cfg, mcp.NoHandler{})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.Opened()
	took := time.Since(began)
	if state, _ := s.State(); state != mcp.Open {
		return 0, <-ended
	}
	cancel()
	return took, <-ended
}
