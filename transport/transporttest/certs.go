package transporttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// ServerName is what a CA's server certificate is made out to, beside
// "localhost", 127.0.0.1 and ::1.
const ServerName = "server.test"

// CA is a certificate authority for one test. It may be used concurrently.
type CA struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

// NewCA makes one that nobody else trusts.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca := &CA{t: t, key: newKey(t), pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber:          newSerial(t),
		Subject:               pkix.Name{CommonName: "a test's authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	ca.cert = ca.sign(template, template, &ca.key.PublicKey)
	ca.pool.AddCert(ca.cert)
	return ca
}

// Server is for a server of the name ServerName that asks for no certificate.
func (ca *CA) Server() transport.TLS { return ca.server(tls.NoClientCert) }

// MutualServer also demands a client certificate of this authority.
func (ca *CA) MutualServer() transport.TLS { return ca.server(tls.RequireAndVerifyClientCert) }

func (ca *CA) server(ask tls.ClientAuthType) transport.TLS {
	return fixed(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{ca.serverCertificate()},
		ClientAuth:   ask,
		ClientCAs:    ca.pool,
	})
}

// Client is for a client that trusts this authority, with a certificate of
// these names, or none if there are none. The first is also the common name; a
// name with a colon is a URI.
func (ca *CA) Client(names ...string) transport.TLS {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    ca.pool,
		ServerName: ServerName,
	}
	if len(names) > 0 {
		config.Certificates = []tls.Certificate{ca.Certificate(x509.ExtKeyUsageClientAuth, names...)}
	}
	return fixed(config)
}

// Certificate makes a key, and signs a certificate for it that is valid for a
// day. names are as Client takes them.
func (ca *CA) Certificate(use x509.ExtKeyUsage, names ...string) tls.Certificate {
	ca.t.Helper()
	key := newKey(ca.t)
	template := &x509.Certificate{
		SerialNumber: newSerial(ca.t),
		Subject:      pkix.Name{CommonName: names[0]},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{use},
	}
	for _, name := range names {
		switch {
		case net.ParseIP(name) != nil:
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(name))
		case strings.Contains(name, ":"):
			uri, err := url.Parse(name)
			ca.must(err)
			template.URIs = append(template.URIs, uri)
		default:
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	leaf := ca.sign(template, ca.cert, &key.PublicKey)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.cert.Raw}, PrivateKey: key, Leaf: leaf}
}

func (ca *CA) serverCertificate() tls.Certificate {
	return ca.Certificate(x509.ExtKeyUsageServerAuth, ServerName, "localhost", "127.0.0.1", "::1")
}

// Files writes ca.crt, server.crt, server.key, client.crt and client.key to
// dir as PEM; the client's name is "client".
func (ca *CA) Files(dir string) {
	ca.t.Helper()
	ca.write(dir, "ca.crt", "CERTIFICATE", ca.cert.Raw)
	for name, pair := range map[string]tls.Certificate{
		"server": ca.serverCertificate(),
		"client": ca.Certificate(x509.ExtKeyUsageClientAuth, "client"),
	} {
		key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		ca.must(err)
		ca.write(dir, name+".crt", "CERTIFICATE", pair.Certificate...)
		ca.write(dir, name+".key", "PRIVATE KEY", key)
	}
}

func (ca *CA) write(dir, name, kind string, blocks ...[]byte) {
	ca.t.Helper()
	var text []byte
	for _, b := range blocks {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})...)
	}
	ca.must(os.WriteFile(filepath.Join(dir, name), text, 0o600))
}

func (ca *CA) sign(template, parent *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	ca.t.Helper()
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key, ca.key)
	ca.must(err)
	cert, err := x509.ParseCertificate(raw)
	ca.must(err)
	return cert
}

func (ca *CA) must(err error) {
	ca.t.Helper()
	if err != nil {
		ca.t.Fatal(err)
	}
}

// fixed is a TLS that never changes.
func fixed(c *tls.Config) transport.TLS { return func() *tls.Config { return c } }

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSerial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
