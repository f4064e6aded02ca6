package secure

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
)

// Names are those that the peer has proven to hold; none if its certificate was
// not verified. They are what transport.Info promises.
func Names(state tls.ConnectionState) []string {
	if len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	return CertificateNames(state.VerifiedChains[0][0])
}

// CertificateNames are the DNS and URI names in a certificate and its common
// name, each once.
func CertificateNames(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	if common := c.Subject.CommonName; common != "" && !slices.Contains(names, common) {
		names = append(names, common)
	}
	return names
}
