package auth

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// Whatever a peer sends as its token: it is refused with an *Error that does not
// repeat it, or it is one that the issuer has signed.
func FuzzToken(f *testing.F) {
	i := newIssuer(f)
	a := newAuthenticator(f, jwtConfig(keyFile(f, publicPEM(f, i.publics()...)), rs256, es256, edDSA), false)
	ours := sign(f, jwt.SigningMethodEdDSA, i.ed25519, good())
	for _, seed := range []string{
		"", ".", "..", "a.b.c", "....", ours, ours + ".", ours[:len(ours)-1],
		sign(f, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good()),
		sign(f, jwt.SigningMethodHS256, publicPEM(f, i.publics()...), good()),
		header(`{"alg":"EdDSA","kid":7}`, good(), nil),
		header(`{"alg":["EdDSA"]}`, good(), nil),
		header(`null`, good(), nil),
		header(`{"alg":"ES256"}`, jwt.MapClaims{"exp": -1e308, "aud": []any{1}, "devices": []any{nil}}, nil),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := a.Authenticate("press-7", token, nil)
		if err == nil {
			if signed, _, _ := strings.Cut(ours, "."); !strings.HasPrefix(token, signed) {
				t.Fatalf("%q is good", token)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || e.Reason == "" {
			t.Fatalf("%v is no *Error", err)
		}
		if len(token) > 20 && strings.Contains(err.Error(), token) {
			t.Fatalf("the token is in %q", err)
		}
		if id.MaySpeakFor("press-7") {
			t.Fatal("who was refused may speak")
		}
	})
}

// Whatever a server publishes as its keys.
func FuzzJWKS(f *testing.F) {
	text, _ := json.Marshal(map[string]any{"keys": newIssuer(f).jwks("x")})
	f.Add(text)
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"","y":""},null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := parseJWKS(text, []string{rs256, es256, edDSA})
		if err == nil && (len(set) == 0 || len(set) > maxKeys) {
			t.Fatalf("%d keys are usable", len(set))
		}
	})
}
