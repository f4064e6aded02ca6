// Package auth decides who a peer is: TLS configurations that follow their
// files, tokens (JWT), and for which devices a peer may speak. It knows no
// transport and no protocol.
package auth

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pattern"
)

// Kind is how a refusal is to be answered.
type Kind int

// Kinds of refusals.
const (
	Unauthorized Kind = iota // who the peer is was not proven
	Expired                  // it was once: a fresh token is needed
	NotAllowed               // it is proven, and the peer claims to be somebody else
	Unavailable              // the keys to check it with are not there yet: later perhaps
)

// Error refuses a peer. Its text is for the peer: it helps an integrator, tells
// an attacker no secret, and never contains a token.
type Error struct {
	Kind   Kind
	Reason string
}

// Error implements error.
func (e *Error) Error() string { return e.Reason }

// Roles that a token can give.
const (
	RolePublish = "publish" // send records
	RoleCommand = "command" // send commands to devices
	RoleOperate = "operate" // change the agent's state
)

// Identity is a peer that has proven who it is.
type Identity struct {
	Subject string   // its name: the token's subject, or the one in its certificate
	Devices []string // for which it may speak beside itself, as patterns
	Roles   []string
	expires time.Time
}

// String is the peer's name.
func (i Identity) String() string { return i.Subject }

// Expires is when the proof ends; the zero time means never.
func (i Identity) Expires() time.Time { return i.expires }

// MaySpeakFor tells whether the peer may publish and answer for the device.
func (i Identity) MaySpeakFor(device string) bool {
	return device == i.Subject || len(i.Devices) > 0 && pattern.List(i.Devices).Match(device)
}

// Has tells whether the peer was given the role.
func (i Identity) Has(role string) bool { return slices.Contains(i.Roles, role) }

// Authenticator proves the peers of one listener. It may be used concurrently.
type Authenticator struct {
	certificates bool
	tokens       *tokens // nil: none are asked for
}

// New makes an Authenticator. certificates says that the listener demands
// client certificates; the peer's name must then be in its certificate. A token
// is asked for if cfg has keys to check it with. It reads a key file, and
// fetches nothing before Run.
func New(cfg ListenConfig, certificates bool, log *slog.Logger) (*Authenticator, error) {
	a := &Authenticator{certificates: certificates}
	if cfg.JWT != nil {
		var err error
		if a.tokens, err = newTokens(*cfg.JWT, log); err != nil {
			return nil, err
		}
	}
	if a.tokens == nil && !certificates {
		return nil, errors.New("auth: neither tokens nor client certificates are configured: set jwt, or client_ca in tls")
	}
	return a, nil
}

// Run keeps the keys up to date until ctx ends.
func (a *Authenticator) Run(ctx context.Context) error {
	if a.tokens == nil {
		<-ctx.Done()
		return nil
	}
	return a.tokens.keys.run(ctx)
}

// Authenticate looks at what a peer shows that says it is sender: the token of
// its HELLO, and the names in the certificate that it has proven to hold. What
// is configured must vouch for sender: the token, the certificate, or both. It
// waits a few seconds if keys are being fetched that it needs. It fails with an
// *Error.
func (a *Authenticator) Authenticate(sender, token string, certNames []string) (Identity, error) {
	if a.certificates && !slices.Contains(certNames, sender) {
		if len(certNames) == 0 {
			return Identity{}, &Error{Unauthorized, "the certificate has no name in it: make one with the sender as its common name or DNS name"}
		}
		return Identity{}, &Error{NotAllowed, "the sender must be a name in the certificate: " + strings.Join(certNames, ", ")}
	}
	if a.tokens == nil {
		return Identity{Subject: sender, Roles: []string{RolePublish}}, nil
	}
	id, err := a.tokens.identity(token)
	switch {
	case err != nil:
		return Identity{}, err
	case id.Subject != sender:
		return Identity{}, &Error{NotAllowed, "the sender must be the token's subject: " + id.Subject}
	}
	return id, nil
}
