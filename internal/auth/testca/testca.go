// Package testca makes a certificate authority and certificates for a first
// set-up. A plant that has an authority of its own takes that.
package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	day    = 24 * time.Hour
	caLife = 3652 * day // ten years
	// leafLife is a year: some clients refuse what is valid for more than 398 days.
	leafLife = 365 * day
	// skew is how far the clock of whoever checks may be behind.
	skew = time.Hour
)

// CA is an authority in a folder: ca.crt and ca.key, and beside them what it
// has signed. Nothing in it is ever overwritten.
type CA struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Open takes the authority in dir, or makes one, and the folder, if there is
// none.
func Open(dir string) (ca *CA, made bool, err error) {
	ca = &CA{dir: dir}
	err = ca.load()
	if !errors.Is(err, fs.ErrNotExist) || ca.Has("ca") {
		return ca, false, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, false, err
	}
	return ca, true, ca.make()
}

func (ca *CA) load() error {
	pair, err := tls.LoadX509KeyPair(ca.path("ca.crt"), ca.path("ca.key"))
	if err != nil {
		return err
	}
	key, isECDSA := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !isECDSA || !pair.Leaf.IsCA {
		return fmt.Errorf("%s is not a CA that edge-agent has made", ca.path("ca.crt"))
	}
	ca.cert, ca.key = pair.Leaf, key
	return nil
}

func (ca *CA) make() (err error) {
	if ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	template, err := newTemplate("edge-agent test CA", caLife)
	if err != nil {
		return err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true // it signs no further authority
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &ca.key.PublicKey, ca.key)
	if err != nil {
		return err
	}
	if ca.cert, err = x509.ParseCertificate(raw); err != nil {
		return err
	}
	return ca.write("ca", raw, ca.key)
}

// Server makes server.crt and server.key for these host names and addresses.
func (ca *CA) Server(hosts ...string) error {
	if len(hosts) == 0 {
		return errors.New("a server's certificate needs a name")
	}
	template, err := newTemplate(hosts[0], leafLife)
	if err != nil {
		return err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return ca.issue("server", template)
}

// Client makes NAME.crt and NAME.key for a client that calls itself name, which
// must be able to name a file.
func (ca *CA) Client(name string) error {
	template, err := newTemplate(name, leafLife)
	if err != nil {
		return err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return ca.issue(name, template)
}

func newTemplate(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // RFC 5280, section 4.1.2.2: at most 20 octets, positive
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, nil
}

func (ca *CA) issue(file string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return err
	}
	return ca.write(file, raw, key)
}

func (ca *CA) path(file string) string { return filepath.Join(ca.dir, file) }
