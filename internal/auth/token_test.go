package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	theIssuer   = "https://issuer.test"
	theAudience = "edge-agent"
)

// good are the claims of a token that is.
func good() jwt.MapClaims {
	return jwt.MapClaims{"sub": "press-7", "iss": theIssuer, "aud": theAudience, "exp": time.Now().Add(time.Hour).Unix()}
}

// but changes claims; nil takes one away.
func but(changes jwt.MapClaims) jwt.MapClaims {
	c := good()
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func sign(t testing.TB, method jwt.SigningMethod, key any, claims jwt.Claims, header ...any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i].(string)] = header[i+1]
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func jwtConfig(path string, algorithms ...string) ListenConfig {
	return ListenConfig{JWT: &JWTConfig{Algorithms: algorithms, KeyFile: path, Issuer: theIssuer, Audience: theAudience, Leeway: 10 * time.Second}}
}

func newAuthenticator(t testing.TB, cfg ListenConfig, certificates bool) *Authenticator {
	t.Helper()
	_, log := newLog()
	a, err := New(cfg, certificates, log)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// refused checks how a peer was refused.
func refused(t *testing.T, err error, kind Kind, reason string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != kind || !strings.Contains(e.Reason, reason) {
		t.Errorf("got %v, want kind %d with %q", err, kind, reason)
	}
}

func TestATokenOfEachAlgorithmIsAccepted(t *testing.T) {
	i := newIssuer(t)
	public := newAuthenticator(t, jwtConfig(keyFile(t, publicPEM(t, i.publics()...)), rs256, es256, edDSA), false)
	secret := newAuthenticator(t, jwtConfig(keyFile(t, append(i.secret, '\n')), hs256), false)
	for _, c := range []struct {
		at     *Authenticator
		method jwt.SigningMethod
		key    any
	}{
		{public, jwt.SigningMethodRS256, i.rsa},
		{public, jwt.SigningMethodES256, i.ecdsa},
		{public, jwt.SigningMethodEdDSA, i.ed25519},
		{secret, jwt.SigningMethodHS256, i.secret},
	} {
		id, err := c.at.Authenticate("press-7", sign(t, c.method, c.key, good()), nil)
		if err != nil {
			t.Errorf("%s: %v", c.method.Alg(), err)
			continue
		}
		if left := time.Until(id.Expires()); id.String() != "press-7" || left < 59*time.Minute || left > 61*time.Minute {
			t.Errorf("%s: %v, for %v", c.method.Alg(), id, left)
		}
	}
}

func TestATokenSaysForWhomAPeerSpeaks(t *testing.T) {
	i := newIssuer(t)
	a := newAuthenticator(t, jwtConfig(keyFile(t, publicPEM(t, i.publics()...)), edDSA), false)
	for _, c := range []struct {
		claims  jwt.MapClaims
		devices map[string]bool
		roles   string
	}{
		{nil, map[string]bool{"press-7": true, "press-8": false, "": false}, "publish"},
		{jwt.MapClaims{"devices": []string{"boiler-*", "pump-[12]"}}, map[string]bool{"press-7": true, "boiler-9": true, "pump-2": true, "pump-3": false}, "publish"},
		{jwt.MapClaims{"devices": []string{}}, map[string]bool{"press-7": true, "press-8": false}, "publish"},
		{jwt.MapClaims{"roles": []string{"command", "offline_access"}}, map[string]bool{"press-7": true}, "command"},
		{jwt.MapClaims{"roles": []string{}}, map[string]bool{"press-7": true}, ""},
		{jwt.MapClaims{"roles": []string{"publish", "command", "operate"}}, map[string]bool{"press-7": true}, "publish command operate"},
	} {
		id, err := a.Authenticate("press-7", sign(t, jwt.SigningMethodEdDSA, i.ed25519, but(c.claims)), nil)
		if err != nil {
			t.Errorf("%v: %v", c.claims, err)
			continue
		}
		for device, may := range c.devices {
			if id.MaySpeakFor(device) != may {
				t.Errorf("%v: may speak for %q: %v", c.claims, device, !may)
			}
		}
		for _, role := range []string{RolePublish, RoleCommand, RoleOperate} {
			if id.Has(role) != strings.Contains(c.roles, role) {
				t.Errorf("%v: has %s: %v", c.claims, role, id.Has(role))
			}
		}
	}
}

func TestASubjectThatLooksLikeAPatternIsNone(t *testing.T) {
	i := newIssuer(t)
	a := newAuthenticator(t, jwtConfig(keyFile(t, i.secret), hs256), false)
	id, err := a.Authenticate("*", sign(t, jwt.SigningMethodHS256, i.secret, but(jwt.MapClaims{"sub": "*"})), nil)
	if err != nil {
		t.Fatal(err)
	}
	if id.MaySpeakFor("press-7") {
		t.Error("the peer * may speak for press-7")
	}
	if (Identity{}).MaySpeakFor("press-7") {
		t.Error("nobody may speak for press-7")
	}
}

func TestABadTokenIsRefused(t *testing.T) {
	i := newIssuer(t)
	public := publicPEM(t, i.publics()...)
	a := newAuthenticator(t, jwtConfig(keyFile(t, public), rs256, edDSA), false)
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	signed := func(claims jwt.MapClaims) string { return sign(t, jwt.SigningMethodEdDSA, i.ed25519, claims) }
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(signed(good()), ".")
	body, mac, _ := strings.Cut(body, ".")
	for _, c := range []struct {
		name, token string
		kind        Kind
		reason      string
	}{
		{"none at all", "", Unauthorized, "put it into HELLO"},
		{"expired", signed(but(jwt.MapClaims{"exp": ago(time.Minute)})), Expired, "expired"},
		{"expired and for somebody else", signed(but(jwt.MapClaims{"exp": ago(time.Minute), "aud": "x"})), Unauthorized, "aud"},
		{"without an end", signed(but(jwt.MapClaims{"exp": nil})), Unauthorized, "lacks a claim"},
		{"with an end that is none", signed(but(jwt.MapClaims{"exp": 1e300})), Expired, "expired"},
		{"not yet valid", signed(but(jwt.MapClaims{"nbf": ago(-time.Minute)})), Unauthorized, "compare the clocks"},
		{"of another issuer", signed(but(jwt.MapClaims{"iss": "https://other.test"})), Unauthorized, "another issuer"},
		{"of no issuer", signed(but(jwt.MapClaims{"iss": nil})), Unauthorized, "iss"},
		{"for another audience", signed(but(jwt.MapClaims{"aud": []string{"a", "b"}})), Unauthorized, "somebody else"},
		{"for no audience", signed(but(jwt.MapClaims{"aud": nil})), Unauthorized, "aud"},
		{"without a subject", signed(but(jwt.MapClaims{"sub": nil})), Unauthorized, "no subject"},
		{"of somebody else", signed(but(jwt.MapClaims{"sub": "press-8"})), NotAllowed, "subject: press-8"},
		{"with devices that are no patterns", signed(but(jwt.MapClaims{"devices": []string{"a["}})), Unauthorized, "no patterns"},
		{"with devices that are no list", signed(but(jwt.MapClaims{"devices": "boiler-*"})), Unauthorized, "malformed"},
		{"with critical extensions", sign(t, jwt.SigningMethodEdDSA, i.ed25519, good(), "crit", []string{"b64"}), Unauthorized, "crit"},
		{"of another key", sign(t, jwt.SigningMethodRS256, other, good()), Unauthorized, "signature"},
		{"of an algorithm that is not accepted", sign(t, jwt.SigningMethodES256, i.ecdsa, good()), Unauthorized, "RS256, EdDSA"},
		{"unsigned", head + "." + body + ".", Unauthorized, "signature"},
		{"without a signature's place", head + "." + body, Unauthorized, "malformed"},
		{"with other claims", head + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"press-7"}`)) + "." + mac, Unauthorized, "signature"},
		{"signed with none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good()), Unauthorized, "signature"},
		{"signed with a public key as a secret", sign(t, jwt.SigningMethodHS256, public, good()), Unauthorized, "signature"},
		{"of no algorithm that there is", header(`{"alg":"HS1"}`, good(), nil), Unauthorized, "not signed"},
		{"of None", header(`{"alg":"None"}`, good(), nil), Unauthorized, "not signed"},
		{"of no algorithm", header(`{}`, good(), nil), Unauthorized, "not signed"},
		{"no token", "abc", Unauthorized, "malformed"},
		{"too long", strings.Repeat("a", maxToken+1), Unauthorized, "longer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := a.Authenticate("press-7", c.token, nil)
			refused(t, err, c.kind, c.reason)
			if id.MaySpeakFor("press-7") || id.Has(RolePublish) {
				t.Errorf("who was refused is %+v", id)
			}
			if c.token != "" && err != nil && strings.Contains(err.Error(), c.token) {
				t.Errorf("the token is in %q", err)
			}
		})
	}
}

// header makes a token with a header of its own, signed with HS256.
func header(text string, claims jwt.MapClaims, key []byte) string {
	unsigned, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SigningString()
	_, body, _ := strings.Cut(unsigned, ".")
	text = base64.RawURLEncoding.EncodeToString([]byte(text)) + "." + body
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestALeewayOfTheClocksIsGranted(t *testing.T) {
	i := newIssuer(t)
	a := newAuthenticator(t, jwtConfig(keyFile(t, i.secret), hs256), false)
	claims := but(jwt.MapClaims{"exp": time.Now().Add(-3 * time.Second).Unix(), "nbf": time.Now().Add(5 * time.Second).Unix()})
	id, err := a.Authenticate("press-7", sign(t, jwt.SigningMethodHS256, i.secret, claims), nil)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(id.Expires()); left < 4*time.Second {
		t.Errorf("the session has %v left", left)
	}
}

func TestACertificateMustNameTheSender(t *testing.T) {
	i := newIssuer(t)
	cfg := jwtConfig(keyFile(t, i.secret), hs256)
	token := sign(t, jwt.SigningMethodHS256, i.secret, good())
	alone := newAuthenticator(t, ListenConfig{}, true)
	both := newAuthenticator(t, cfg, true)

	id, err := alone.Authenticate("press-7", "", []string{"gw.test", "press-7"})
	if err != nil || !id.MaySpeakFor("press-7") || id.MaySpeakFor("gw.test") || !id.Has(RolePublish) || id.Has(RoleCommand) || !id.Expires().IsZero() {
		t.Errorf("%+v, %v", id, err)
	}
	_, err = alone.Authenticate("press-8", "", []string{"press-7"})
	refused(t, err, NotAllowed, "press-7")
	_, err = alone.Authenticate("press-7", "", nil)
	refused(t, err, Unauthorized, "no name in it")

	if _, err := both.Authenticate("press-7", token, []string{"press-7"}); err != nil {
		t.Error(err)
	}
	_, err = both.Authenticate("press-7", token, []string{"press-8"})
	refused(t, err, NotAllowed, "certificate")
	_, err = both.Authenticate("press-8", token, []string{"press-8"})
	refused(t, err, NotAllowed, "token")
	_, err = both.Authenticate("press-7", "", []string{"press-7"})
	refused(t, err, Unauthorized, "a token is needed")
}

func TestAnAuthenticatorNeedsSomethingToGoBy(t *testing.T) {
	_, log := newLog()
	if _, err := New(ListenConfig{}, false, log); err == nil {
		t.Error("an Authenticator that lets everybody in")
	}
	if _, err := New(jwtConfig("/none", hs256, rs256), false, log); err == nil || !strings.Contains(err.Error(), "mixed") {
		t.Errorf("HS256 with RS256: %v", err)
	}
}

func TestAKeyFileThatIsNoneIsRefused(t *testing.T) {
	i := newIssuer(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		text      []byte
		algorithm string
		want      string
	}{
		{"a short secret", i.secret[:31], hs256, "at least 32"},
		{"a public key as a secret", publicPEM(t, i.ed25519.Public()), hs256, "HS256 takes a secret"},
		{"no PEM", i.secret, rs256, "no public key"},
		{"a key for something else", publicPEM(t, i.ed25519.Public()), rs256, "no key for RS256"},
		{"a short key", publicPEM(t, &small.PublicKey), rs256, "1024 bits"},
		{"a private key", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), rs256, "only the issuer"},
	} {
		_, log := newLog()
		_, err := New(jwtConfig(keyFile(t, c.text), c.algorithm), false, log)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestARotatedKeyFileIsTakenAndABadOneIsNot(t *testing.T) {
	old, fresh := newIssuer(t), newIssuer(t)
	path := keyFile(t, publicPEM(t, old.publics()...))
	logged, log := newLog()
	a, err := New(jwtConfig(path, es256), false, log)
	if err != nil {
		t.Fatal(err)
	}
	a.tokens.keys.(*fileKeys).watcher.every = 5 * time.Millisecond
	background(t, a.Run)
	accepts := func(i *issuer) bool {
		_, err := a.Authenticate("press-7", sign(t, jwt.SigningMethodES256, i.ecdsa, good()), nil)
		return err == nil
	}
	if !accepts(old) || accepts(fresh) {
		t.Fatal("the first file is not what counts")
	}
	write(t, path, publicPEM(t, append(old.publics(), fresh.publics()...)...))
	eventually(t, "the second key", func() bool { return accepts(fresh) })
	if !accepts(old) {
		t.Error("the old key is gone, although it stands beside the new one")
	}
	write(t, path, publicPEM(t, fresh.publics()...))
	eventually(t, "the end of the old key", func() bool { return !accepts(old) })
	write(t, path, []byte("nonsense"))
	eventually(t, "a warning", func() bool { return logged.count("level=WARN") == 1 })
	if !accepts(fresh) {
		t.Error("a bad file took the keys away")
	}
}

func TestATokenIsReadAtEachConnect(t *testing.T) {
	path := keyFile(t, []byte(" first\n"))
	c := DialConfig{TokenFile: path}
	for _, want := range []string{"first", "second"} {
		if token, err := c.Token(); err != nil || token != want {
			t.Errorf("%q, %v", token, err)
		}
		write(t, path, []byte("second"))
	}
	for name, text := range map[string][]byte{"empty": []byte("\n"), "at most": []byte(strings.Repeat("x", maxToken+1))} {
		write(t, path, text)
		if _, err := c.Token(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	os.Remove(path)
	if _, err := c.Token(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
