package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// The alerts that say something about the two configurations (RFC 8446,
// section 6).
const (
	handshakeFailure      tls.AlertError = 40
	badCertificate        tls.AlertError = 42
	unsupportedCert       tls.AlertError = 43
	certificateRevoked    tls.AlertError = 44
	certificateExpired    tls.AlertError = 45
	certificateUnknown    tls.AlertError = 46
	unknownCA             tls.AlertError = 48
	accessDenied          tls.AlertError = 49
	protocolVersion       tls.AlertError = 70
	unrecognizedName      tls.AlertError = 112
	certificateRequired   tls.AlertError = 116
	noApplicationProtocol tls.AlertError = 120
)

// Explain says why TLS failed and what to do about it. settled is true when
// trying again can't help before somebody has changed something. ok is false
// for an error that is not one of TLS.
func Explain(err error) (reason string, settled, ok bool) {
	var header tls.RecordHeaderError
	var told *net.OpError // an alert, theirs or ours
	switch {
	case errors.As(err, &header):
		return "the other side does not speak TLS: check the port, and whether tls is set at both ends", true, true
	case errors.As(err, &told) && told.Op == "remote error":
		return explainAlert(told.Err)
	case errors.As(err, &told) && told.Op == "local error":
		err = told.Err
	}
	if reason, ok := explainCertificate(err); ok {
		return reason, true, true
	}
	if text, isTLS := strings.CutPrefix(err.Error(), "tls: "); isTLS {
		reason, settled = explainText(text)
		return reason, settled, true
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the other side hung up during the TLS handshake: check that it speaks TLS 1.3 and look into its log", false, true
	}
	return "", false, false
}

// NoCertificate is said of a client that has shown none.
const NoCertificate = "the other side has shown no certificate, and client_ca demands one"

// explainText is about what crypto/tls itself has found to be wrong, for which
// it has texts and no types.
func explainText(text string) (reason string, settled bool) {
	says := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
	}
	switch {
	case says("client didn't provide a certificate"):
		return NoCertificate, true
	case says("unsupported protocol version", "only unsupported versions"):
		return "the other side does not speak TLS 1.3: update it", true
	case says("no cipher suite supported", "no key exchanges supported", "application protocol", "ALPN protocol"):
		return "the two sides have nothing in common (" + text + "): check that this is the right port, and what the other side is set to", true
	case says("bad record MAC"):
		return "what the other side sent can't be decrypted: it was damaged on the way, or the other side broke the handshake off, " +
			"perhaps because it does not trust our certificate", false
	}
	return "TLS: " + text, false
}

// explainCertificate is about the certificate that the other side has shown.
func explainCertificate(err error) (string, bool) {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		failed    *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &authority):
		return "the other side's certificate is of an authority that we do not trust: put the certificate of its CA into ca, or client_ca of a listener", true
	case errors.As(err, &host):
		return fmt.Sprintf("the other side's certificate is not for %q but for %s: set server_name to one of these, or have it made for this name",
			host.Host, strings.Join(allNames(host.Certificate), ", ")), true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the other side's certificate is valid from %s to %s, and the clock here says %s: renew it, or set the clock",
			day(invalid.Cert.NotBefore), day(invalid.Cert.NotAfter), day(time.Now())), true
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "the other side's certificate is not made for its side (extended key usage: a server needs serverAuth, a client clientAuth)", true
	case errors.As(err, &failed):
		return "the other side's certificate is no good: " + failed.Err.Error(), true
	}
	return "", false
}

func allNames(c *x509.Certificate) []string {
	names := CertificateNames(c)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// explainAlert is about what the other side says of us. crypto/tls keeps the
// alert's type to itself, so it is known by its text.
func explainAlert(alert error) (reason string, settled, ok bool) {
	is := func(codes ...tls.AlertError) bool {
		for _, code := range codes {
			if alert.Error() == code.Error() {
				return true
			}
		}
		return false
	}
	switch {
	case is(certificateRequired):
		return "the other side wants a client certificate: set cert and key", true, true
	case is(certificateExpired):
		return "the other side says that our certificate has expired: renew it, or set the clock there", true, true
	case is(unknownCA, badCertificate, certificateUnknown):
		return "the other side does not accept our certificate (" + alert.Error() + "): it has to trust the CA that made it, and to reach us by a name in it", true, true
	case is(unsupportedCert, certificateRevoked, accessDenied):
		return "the other side does not accept our certificate (" + alert.Error() + ")", true, true
	case is(protocolVersion):
		return "the other side does not speak TLS 1.3: update it", true, true
	case is(unrecognizedName):
		return "the other side has no certificate for this name: set server_name to one that it has", true, true
	case is(handshakeFailure, noApplicationProtocol):
		return "the two sides have nothing in common (" + alert.Error() + "): check that TLS 1.3 is on there, and that this is the right port", true, true
	}
	return "the other side ended TLS: " + alert.Error(), false, true
}
