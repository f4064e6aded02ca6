// Package secure is what the transports that carry TLS have in common: what
// they ask of a configuration, the names in a peer's certificate, and words for
// a handshake that failed.
package secure

import (
	"crypto/tls"
	"errors"
	"sync/atomic"

	"github.com/mcp-edge/edge-agent/transport"
)

// Source hands out a transport.TLS's configurations as connections use them:
// TLS 1.3 at least. The same one goes in and the same one comes out, because
// session tickets belong to it. It may be used concurrently.
type Source struct {
	given transport.TLS
	host  string
	also  []func(*tls.Config)
	last  atomic.Pointer[hardened]
}

type hardened struct{ from, to *tls.Config }

// NewSource takes for a client the host that it dials, which the certificate
// must name unless the configuration has a ServerName; a server has no host.
// also says what else the transport asks of a configuration.
func NewSource(given transport.TLS, host string, also ...func(*tls.Config)) *Source {
	return &Source{given: given, host: host, also: also}
}

// Config is the configuration for one new connection. It must not be changed.
func (s *Source) Config() (*tls.Config, error) {
	from := s.given()
	if from == nil {
		return nil, transport.Permanent(errors.New("there is no TLS configuration: load its certificates first"))
	}
	if last := s.last.Load(); last != nil && last.from == from {
		return last.to, nil
	}
	// Two that come here at once make two; tickets of the one that is forgotten
	// cost a full handshake, nothing else.
	to := from.Clone()
	to.MinVersion = max(to.MinVersion, tls.VersionTLS13)
	to.MaxVersion = 0
	if to.ServerName == "" {
		to.ServerName = s.host
	}
	// Small records bring a browser its first line sooner; here whole messages count.
	to.DynamicRecordSizingDisabled = true
	for _, ask := range s.also {
		ask(to)
	}
	s.last.Store(&hardened{from, to})
	return to, nil
}
