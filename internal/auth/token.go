package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mcp-edge/edge-agent/internal/pattern"
)

// maxToken is the longest token, in bytes: what HELLO can carry.
const maxToken = 16 << 10

// Token reads the token to show. A program may put a fresh one there at any
// time.
func (c DialConfig) Token() (string, error) {
	text, err := readFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	switch {
	case token == "":
		return "", fmt.Errorf("token_file: %s is empty", c.TokenFile)
	case len(token) > maxToken:
		return "", fmt.Errorf("token_file: %s has %d bytes, a token has at most %d", c.TokenFile, len(token), maxToken)
	}
	return token, nil
}

// tokens checks tokens.
type tokens struct {
	algorithms []string
	leeway     time.Duration
	keys       keySource
	parser     *jwt.Parser
}

// keySource knows the keys. It may be used concurrently.
type keySource interface {
	// find returns those that a token may be signed with which names this key, or
	// none, and this algorithm. It may wait a few seconds. Its errors are *Error.
	find(id, algorithm string) ([]jwt.VerificationKey, error)
	// run keeps them up to date until ctx ends.
	run(ctx context.Context) error
}

func newTokens(cfg JWTConfig, log *slog.Logger) (*tokens, error) {
	var bad error
	cfg.Validate(func(key, problem string) { bad = errors.Join(bad, fmt.Errorf("auth: jwt: %s: %s", key, problem)) })
	if bad != nil {
		return nil, bad
	}
	t := &tokens{algorithms: cfg.Algorithms, leeway: cfg.Leeway, parser: newParser(cfg, time.Now)}
	if cfg.JWKSURL != "" {
		t.keys = newRemoteKeys(cfg, log)
		return t, nil
	}
	var err error
	if t.keys, err = newFileKeys(cfg, log); err != nil {
		return nil, fmt.Errorf("auth: jwt: key_file: %w", err)
	}
	return t, nil
}

func newParser(cfg JWTConfig, now func() time.Time) *jwt.Parser {
	return jwt.NewParser(
		jwt.WithValidMethods(cfg.Algorithms),
		jwt.WithExpirationRequired(),
		jwt.WithIssuer(cfg.Issuer),
		jwt.WithAudience(cfg.Audience),
		jwt.WithLeeway(cfg.Leeway),
		jwt.WithTimeFunc(now),
		jwt.WithStrictDecoding(),
	)
}

// claims of a token: those of RFC 7519, section 4.1, and two of ours.
type claims struct {
	jwt.RegisteredClaims
	Devices []string `json:"devices"`
	Roles   []string `json:"roles"`
}

// identity checks a token. It fails with an *Error.
func (t *tokens) identity(token string) (Identity, error) {
	switch {
	case token == "":
		return Identity{}, &Error{Unauthorized, "a token is needed: put it into HELLO"}
	case len(token) > maxToken:
		return Identity{}, &Error{Unauthorized, fmt.Sprintf("the token is longer than %d bytes", maxToken)}
	}
	c := new(claims)
	if _, err := t.parser.ParseWithClaims(token, c, t.key); err != nil {
		return Identity{}, t.refusal(err)
	}
	if c.Subject == "" {
		return Identity{}, &Error{Unauthorized, "the token has no subject (sub): it must be what the sender calls itself"}
	}
	for _, glob := range c.Devices {
		if pattern.Check(glob) != nil {
			return Identity{}, &Error{Unauthorized, "the token's devices are no patterns such as boiler-*"}
		}
	}
	id := Identity{Subject: c.Subject, Devices: c.Devices, Roles: c.Roles, expires: c.ExpiresAt.Add(t.leeway)}
	if c.Roles == nil {
		id.Roles = []string{RolePublish}
	}
	return id, nil
}

// key is what the parser asks for after it has looked at the algorithm.
func (t *tokens) key(token *jwt.Token) (any, error) {
	// RFC 7515, section 4.1.11: what is marked critical and not understood makes
	// the token invalid, and we understand no extension.
	if _, critical := token.Header["crit"]; critical {
		return nil, &Error{Unauthorized, "the token has critical extensions (crit), which are not understood here"}
	}
	id, _ := token.Header["kid"].(string)
	keys, err := t.keys.find(id, token.Method.Alg())
	if err != nil {
		return nil, err
	}
	return jwt.VerificationKeySet{Keys: keys}, nil
}

// refusal says why a token is no good. Before its signature was checked a token
// may be anybody's, so what it says is not repeated.
func (t *tokens) refusal(err error) error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	accepted := strings.Join(t.algorithms, ", ")
	for _, r := range []struct {
		cause  error
		reason string
	}{
		{jwt.ErrTokenMalformed, "the token is malformed"},
		{jwt.ErrTokenUnverifiable, "the token is not signed, or not with one of " + accepted},
		{jwt.ErrTokenSignatureInvalid, "the token's signature is wrong: another key, or not one of " + accepted},
		{jwt.ErrTokenRequiredClaimMissing, "the token lacks a claim: it needs exp, iss, aud and sub"},
		{jwt.ErrTokenInvalidIssuer, "the token is of another issuer (iss)"},
		{jwt.ErrTokenInvalidAudience, "the token is meant for somebody else (aud)"},
		{jwt.ErrTokenNotValidYet, "the token is not valid yet (nbf): compare the clocks"},
	} {
		if errors.Is(err, r.cause) {
			return &Error{Unauthorized, r.reason}
		}
	}
	if errors.Is(err, jwt.ErrTokenExpired) {
		return &Error{Expired, "the token has expired (exp): get a fresh one"}
	}
	return &Error{Unauthorized, "the token is no good"}
}
