package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/auth"
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	wire "github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
)

// certificate is one that we show to others.
type certificate struct {
	of  string // who shows it
	tls *auth.TLS
}

// expiresSoon is when a certificate's end begins to show in status.
const expiresSoon = 30 * 24 * time.Hour

// keep adds something that must run for as long as links and listeners do.
func (a *Agent) keep(name string, run func(context.Context) error) {
	a.keepers = append(a.keepers, part{name, run})
}

// serverTLS makes what accepted connections are secured with; nil for none.
func (a *Agent) serverTLS(of string, cfg *auth.ServerTLSConfig) (transport.TLS, error) {
	if cfg == nil {
		return nil, nil
	}
	t, err := auth.NewServerTLS(*cfg, a.log.With("tls", of))
	return a.trust(of, t, err)
}

// clientTLS makes what dialed connections are secured with; nil for none.
func (a *Agent) clientTLS(of string, cfg *auth.ClientTLSConfig) (transport.TLS, error) {
	if cfg == nil {
		return nil, nil
	}
	t, err := auth.NewClientTLS(*cfg, a.log.With("tls", of))
	return a.trust(of, t, err)
}

func (a *Agent) trust(of string, t *auth.TLS, err error) (transport.TLS, error) {
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	a.keep("certificates of "+of, t.Run)
	a.certificates = append(a.certificates, certificate{of, t})
	return t.Config, nil
}

// stateOfCertificates tells when those that we show will end.
func (a *Agent) stateOfCertificates(st *admin.State, now time.Time) {
	for _, c := range a.certificates {
		problem, expires := c.tls.Problem(), c.tls.Expiry()
		if problem != "" {
			st.Degraded = append(st.Degraded, fmt.Sprintf("the changed certificate files of %s are no good, those before stay in use until a restart: %s", c.of, problem))
		}
		if expires.IsZero() {
			continue
		}
		st.Certificates = append(st.Certificates, admin.Certificate{Of: c.of, Expires: expires, Problem: problem})
		switch left := expires.Sub(now); {
		case left <= 0:
			st.Degraded = append(st.Degraded, fmt.Sprintf("the certificate of %s has expired: peers refuse it, renew it", c.of))
		case left < expiresSoon:
			st.Degraded = append(st.Degraded, fmt.Sprintf("the certificate of %s expires in %d days: renew it", c.of, int(left.Hours()/24)))
		}
	}
}

// authenticator gives refusals the codes of MCP.
type authenticator struct{ *auth.Authenticator }

// Authenticate implements mcp.Authenticator.
func (a authenticator) Authenticate(sender, token string, certNames []string) (mcp.Identity, error) {
	id, err := a.Authenticator.Authenticate(sender, token, certNames)
	var refused *auth.Error
	if !errors.As(err, &refused) {
		return id, err
	}
	codes := map[auth.Kind]wire.Code{
		auth.Unauthorized: wire.CodeUnauthorized, auth.Expired: wire.CodeTokenExpired,
		auth.NotAllowed: wire.CodeNotAllowed, auth.Unavailable: wire.CodeBusy,
	}
	return nil, &wire.Error{Code: codes[refused.Kind], Reason: refused.Reason}
}
