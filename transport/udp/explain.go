package udp

import (
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
	"github.com/mcp-edge/edge-agent/transport/internal/secure"
)

// handshakeError says why a handshake failed. To the one who dialed, what only
// a change of the configuration can mend is permanent; a listener has lost a
// peer, whatever that did.
func (s *session) handshakeError(err error) error {
	gone := s.records.ending()
	switch {
	case s.ctx.Err() != nil:
		return net.ErrClosed
	case gone != nil && !errors.Is(gone, net.ErrClosed) && s.dialed:
		return netfault.Unreached(nobodyThere)
	case gone != nil && !errors.Is(gone, net.ErrClosed):
		return gone
	case errors.Is(err, transport.ErrTooLarge):
		return tooLargeForTheWay(s.records.packets.size)
	}
	reason, settled := explain(err)
	switch {
	case !s.dialed:
		return transport.Handshake(transport.Lost(errors.New(reason)))
	case settled:
		return transport.Permanent(errors.New(reason))
	}
	return netfault.Unreached(reason)
}

// The alerts that say something about the two configurations (RFC 5246,
// section 7.2; 41 is of RFC 6101, and the library still says it).
const (
	alertHandshakeFailure     = 40
	alertNoCertificate        = 41
	alertBadCertificate       = 42
	alertUnsupportedCert      = 43
	alertCertificateRevoked   = 44
	alertCertificateExpired   = 45
	alertCertificateUnknown   = 46
	alertUnknownCA            = 48
	alertAccessDenied         = 49
	alertProtocolVersion      = 70
	alertInsufficientSecurity = 71
)

// explain puts what the library says into words. settled is true when trying
// again can't help before somebody has changed something.
func explain(err error) (reason string, settled bool) {
	if isCertificate(err) {
		reason, settled, _ := secure.Explain(err)
		return reason, settled
	}
	// The library's alert is of a type of its own, which can write itself.
	var alert interface{ Marshal() ([]byte, error) }
	if errors.As(err, &alert) {
		if raw, err := alert.Marshal(); err == nil && len(raw) == 2 {
			return explainAlert(raw[1])
		}
	}
	return explainText(err.Error())
}

// explainText is about what the library itself has found to be wrong, for which
// it has texts and no types.
func explainText(text string) (reason string, settled bool) {
	for _, layer := range []string{"handshake error: ", "dtls fatal: ", "dtls internal: ", "dtls temporary: ", "dtls timeout: "} {
		text = strings.TrimPrefix(text, layer)
	}
	says := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
	}
	switch {
	case says("server required client verification, but got none"):
		return secure.NoCertificate, true
	case says("client sent certificate but did not verify it"):
		return "the other side has not proven that the certificate it shows is its own: check that its key belongs to it", true
	case says("no certificate provided"):
		return "the other side has shown no certificate: it needs one", true
	case says("unsupported protocol version"):
		return "the other side does not speak DTLS 1.2", true
	case says("Extended Master Secret"):
		return "the other side does not know the extended master secret (RFC 7627): update it", true
	case says("shared cipher suites", "cipher suite", "elliptic curves", "SignatureScheme", "signature algorithm"):
		return "the two sides have nothing in common (" + text + "): check what the other side is set to, and the kind of our key", true
	case says("not signed by an acceptable CA"):
		return "the other side accepts certificates of other CAs only: have cert made by one that it trusts", true
	}
	return "the DTLS handshake failed: " + text, false
}

func isCertificate(err error) bool {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	return errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}

func explainAlert(code byte) (reason string, settled bool) {
	switch code {
	case alertHandshakeFailure, alertInsufficientSecurity:
		return "the other side refuses the handshake: it may want a client certificate (set cert and key), or know none of our cipher suites", true
	case alertNoCertificate:
		return "the other side wants a client certificate: set cert and key", true
	case alertCertificateExpired:
		return "the other side says that our certificate has expired: renew it, or set the clock there", true
	case alertBadCertificate, alertUnknownCA, alertCertificateUnknown:
		return "the other side does not accept our certificate: it has to trust the CA that made it, and to reach us by a name in it", true
	case alertUnsupportedCert, alertCertificateRevoked, alertAccessDenied:
		return "the other side does not accept our certificate", true
	case alertProtocolVersion:
		return "the other side does not speak DTLS 1.2", true
	}
	return "the other side ended the DTLS handshake", false
}
