package udp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/pion/dtls/v3"

	"github.com/mcp-edge/edge-agent/transport"
)

// settings are what a tls.Config says about one DTLS session.
type settings struct {
	given  *tls.Config
	host   string // dialed
	mtu    int
	chains [][]*x509.Certificate // of the peer's certificate; set by the handshake
}

// handshakeRoom is what a record of the handshake needs beside its fragment of
// a message: two headers, connection ID, nonce and tag.
const handshakeRoom = 64

// newSettings asks for the configuration of one session.
func newSettings(c Config, host string) (*settings, error) {
	given := c.TLS()
	switch {
	case given == nil:
		return nil, transport.Permanent(errors.New("there is no TLS configuration: load its certificates first"))
	case given.GetConfigForClient != nil:
		return nil, transport.Permanent(errors.New("DTLS does not know GetConfigForClient of a tls.Config: use GetCertificate"))
	}
	return &settings{given: given, host: host, mtu: c.MaxDatagram - handshakeRoom}, nil
}

// check refuses what a listener can't work with.
func (s *settings) check() error {
	if len(s.given.Certificates) == 0 && s.given.GetCertificate == nil {
		return transport.Permanent(errors.New("a DTLS listener needs a certificate: set cert and key"))
	}
	return nil
}

// suites are those with forward secrecy and authenticated encryption.
func suites() []dtls.CipherSuiteID {
	return []dtls.CipherSuiteID{
		dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		dtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		dtls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM,
	}
}

// common are the options of both sides.
func (s *settings) common() []dtls.Option {
	options := []dtls.Option{
		dtls.WithCipherSuites(suites()...),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret), // RFC 7627
		dtls.WithMTU(s.mtu),
		dtls.WithVerifyPeerCertificate(s.verifyCertificate),
	}
	if len(s.given.Certificates) > 0 {
		options = append(options, dtls.WithCertificates(s.given.Certificates...))
	}
	if s.given.VerifyConnection != nil {
		options = append(options, dtls.WithVerifyConnection(s.verifyConnection))
	}
	return options
}

// client takes from the configuration what a client needs. It sends the
// server's connection ID and wants none itself: its socket has one peer.
func (s *settings) client() func(*session) (*dtls.Conn, error) {
	options := []dtls.ClientOption{
		dtls.WithRootCAs(s.given.RootCAs),
		dtls.WithServerName(s.serverName()),
		dtls.WithInsecureSkipVerify(s.given.InsecureSkipVerify),
		dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()),
	}
	for _, o := range s.common() {
		options = append(options, o)
	}
	if get := s.given.GetClientCertificate; get != nil {
		options = append(options, dtls.WithGetClientCertificate(func(i *dtls.CertificateRequestInfo) (*tls.Certificate, error) {
			return get(&tls.CertificateRequestInfo{AcceptableCAs: i.AcceptableCAs, Version: tls.VersionTLS12, SignatureSchemes: schemes()})
		}))
	}
	return func(on *session) (*dtls.Conn, error) {
		on.settings, on.dialed = s, true
		return dtls.ClientWithOptions(wire{on}, address(on.lower.peer()), options...)
	}
}

// server is the same for a server, which gives out connection IDs.
func (s *settings) server(ids func() []byte) func(*session) (*dtls.Conn, error) {
	options := []dtls.ServerOption{
		dtls.WithClientAuth(clientAuth(s.given.ClientAuth)),
		dtls.WithClientCAs(s.given.ClientCAs),
		dtls.WithConnectionIDGenerator(ids),
	}
	for _, o := range s.common() {
		options = append(options, o)
	}
	if get := s.given.GetCertificate; get != nil {
		options = append(options, dtls.WithGetCertificate(func(i *dtls.ClientHelloInfo) (*tls.Certificate, error) {
			return get(helloInfo(i))
		}))
	}
	return func(on *session) (*dtls.Conn, error) {
		on.settings = s
		return dtls.ServerWithOptions(wire{on}, address(on.lower.peer()), options...)
	}
}

func (s *settings) serverName() string {
	if s.given.ServerName != "" {
		return s.given.ServerName
	}
	return s.host
}

func clientAuth(ask tls.ClientAuthType) dtls.ClientAuthType {
	switch ask {
	case tls.NoClientCert:
		return dtls.NoClientCert
	case tls.RequestClientCert:
		return dtls.RequestClientCert
	case tls.RequireAnyClientCert:
		return dtls.RequireAnyClientCert
	case tls.VerifyClientCertIfGiven:
		return dtls.VerifyClientCertIfGiven
	}
	return dtls.RequireAndVerifyClientCert
}

func helloInfo(i *dtls.ClientHelloInfo) *tls.ClientHelloInfo {
	info := &tls.ClientHelloInfo{
		ServerName:        i.ServerName,
		SupportedVersions: []uint16{tls.VersionTLS12},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384},
		SupportedPoints:   []uint8{0}, // uncompressed
		SignatureSchemes:  schemes(),
	}
	for _, id := range i.CipherSuites {
		info.CipherSuites = append(info.CipherSuites, uint16(id))
	}
	return info
}

// schemes: which of them the peer takes, the library keeps to itself.
func schemes() []tls.SignatureScheme {
	return []tls.SignatureScheme{
		tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.Ed25519,
		tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PKCS1WithSHA256, tls.PKCS1WithSHA384,
	}
}

// verifyCertificate is called when the library has verified the certificate, if
// it is to; chains are empty otherwise.
func (s *settings) verifyCertificate(raw [][]byte, chains [][]*x509.Certificate) error {
	s.chains = chains
	if s.given.VerifyPeerCertificate != nil {
		return s.given.VerifyPeerCertificate(raw, chains)
	}
	return nil
}

func (s *settings) verifyConnection(state *dtls.State) error {
	connection := tls.ConnectionState{
		Version:        tls.VersionTLS12,
		CipherSuite:    uint16(state.CipherSuiteID),
		ServerName:     s.serverName(),
		VerifiedChains: s.chains,
	}
	for _, raw := range state.PeerCertificates {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return err
		}
		connection.PeerCertificates = append(connection.PeerCertificates, cert)
	}
	return s.given.VerifyConnection(connection)
}
