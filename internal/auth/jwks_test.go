package auth

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	stdlog "log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// jwks publishes an issuer's keys under the names rsa-NAME and so on.
func (i *issuer) jwks(name string) []map[string]string {
	b64 := base64.RawURLEncoding.EncodeToString
	point, _ := i.ecdsa.PublicKey.Bytes()
	return []map[string]string{
		{"kty": "RSA", "kid": "rsa-" + name, "use": "sig", "alg": "RS256", "n": b64(i.rsa.N.Bytes()), "e": b64(big.NewInt(int64(i.rsa.E)).Bytes())},
		{"kty": "EC", "kid": "ec-" + name, "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
		{"kty": "OKP", "kid": "ed-" + name, "crv": "Ed25519", "x": b64(i.ed25519.Public().(ed25519.PublicKey))},
	}
}

// keyServer publishes what is put into it; nil makes it fail.
type keyServer struct {
	*httptest.Server
	text  atomic.Pointer[[]byte]
	asked atomic.Int64
}

func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	s := new(keyServer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		if text := s.text.Load(); text != nil {
			_, _ = w.Write(*text)
			return
		}
		http.Error(w, "away", http.StatusServiceUnavailable)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) publish(keys ...map[string]string) {
	text, _ := json.Marshal(map[string]any{"keys": keys})
	s.text.Store(&text)
}

func remoteConfig(url string, algorithms ...string) ListenConfig {
	cfg := jwtConfig("", algorithms...)
	cfg.JWT.JWKSURL = url
	return cfg
}

// aMinuteLater lets the next fetch be made.
func (r *remoteKeys) aMinuteLater() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = r.last.Add(-fetchAgain)
}

func TestPublishedKeysAreFetchedAndRotate(t *testing.T) {
	old, fresh := newIssuer(t), newIssuer(t)
	server := newKeyServer(t)
	server.publish(old.jwks("old")...)
	a := newAuthenticator(t, remoteConfig(server.URL, rs256, es256, edDSA), false)
	background(t, a.Run)
	remote := a.tokens.keys.(*remoteKeys)
	try := func(i *issuer, name string) error {
		for _, c := range []struct {
			method jwt.SigningMethod
			key    any
			id     string
		}{
			{jwt.SigningMethodRS256, i.rsa, "rsa-" + name},
			{jwt.SigningMethodES256, i.ecdsa, "ec-" + name},
			{jwt.SigningMethodEdDSA, i.ed25519, "ed-" + name},
		} {
			if _, err := a.Authenticate("press-7", sign(t, c.method, c.key, good(), "kid", c.id), nil); err != nil {
				return err
			}
		}
		return nil
	}
	if err := try(old, "old"); err != nil { // waits for the first fetch
		t.Fatal(err)
	}
	if _, err := a.Authenticate("press-7", sign(t, jwt.SigningMethodES256, old.ecdsa, good()), nil); err != nil {
		t.Errorf("a token that names no key: %v", err)
	}

	server.publish(append(fresh.jwks("new"), old.jwks("old")...)...)
	for range 10 {
		refused(t, try(fresh, "new"), Unauthorized, "not known here (kid)")
	}
	if n := server.asked.Load(); n != 1 {
		t.Errorf("the server was asked %d times within a minute", n)
	}
	remote.aMinuteLater()
	if err := try(fresh, "new"); err != nil {
		t.Errorf("the new key: %v", err)
	}

	server.text.Store(nil)
	remote.aMinuteLater()
	refused(t, try(old, "unknown"), Unauthorized, "kid")
	if n := server.asked.Load(); n != 3 {
		t.Errorf("the server was asked %d times, want 3", n)
	}
	if err := try(old, "old"); err != nil {
		t.Errorf("while the server is away: %v", err)
	}
	refused(t, try(old, "new"), Unauthorized, "signature")
}

func TestWithoutKeysAPeerIsAskedToComeLater(t *testing.T) {
	server := newKeyServer(t)
	a := newAuthenticator(t, remoteConfig(server.URL, rs256), false)
	background(t, a.Run)
	i := newIssuer(t)
	_, err := a.Authenticate("press-7", sign(t, jwt.SigningMethodRS256, i.rsa, good()), nil)
	refused(t, err, Unavailable, "later")
}

func TestKeysThatAreNoneAreSkipped(t *testing.T) {
	i := newIssuer(t)
	usable := i.jwks("x")
	with := func(n int, changes map[string]string) map[string]string {
		k := maps.Clone(usable[n])
		maps.Copy(k, changes)
		return k
	}
	var keys []map[string]string
	keys = append(keys, map[string]string{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString(i.secret)},
		with(0, map[string]string{"use": "enc"}),
		with(0, map[string]string{"alg": "RS512"}),
		with(0, map[string]string{"n": "AQAB"}),
		with(0, map[string]string{"n": strings.Repeat("_", 1<<16)}),
		with(0, map[string]string{"e": "Ag"}),
		with(0, map[string]string{"e": "____________"}),
		with(0, map[string]string{"e": "AQ"}),
		with(0, map[string]string{"e": "!"}),
		with(1, map[string]string{"x": usable[1]["y"]}), // a point beside the curve
		with(1, map[string]string{"crv": "P-521"}),
		with(1, map[string]string{"y": ""}),
		with(2, map[string]string{"x": "AAAA"}),
		with(2, map[string]string{"crv": "X25519"}),
		map[string]string{},
		usable[0])
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	set, err := parseJWKS(text, []string{rs256})
	if err != nil || len(set) != 1 || set[0].id != "rsa-x" {
		t.Errorf("%d keys, %v", len(set), err)
	}
	for _, none := range []string{"", "[]", "{}", `{"keys":null}`, `{"keys":[{}]}`} {
		if set, err := parseJWKS([]byte(none), []string{rs256}); err == nil {
			t.Errorf("%s gave %d keys", none, len(set))
		}
	}
	text, _ = json.Marshal(map[string]any{"keys": slices.Repeat(usable, 20)})
	if _, err := parseJWKS(text, []string{rs256}); err == nil {
		t.Error("60 keys are taken")
	}
}

func TestAnAnswerWithoutAnEndIsNotRead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for w != nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	_, log := newLog()
	err := newRemoteKeys(*remoteConfig(server.URL, rs256).JWT, log).fetch(t.Context())
	if err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("fetch: %v", err)
	}
}

func TestKeysAreNotFetchedInTheClear(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("http://192.0.2.1/keys", http.StatusFound))
	defer server.Close()
	_, log := newLog()
	err := newRemoteKeys(*remoteConfig(server.URL, rs256).JWT, log).fetch(t.Context())
	if err == nil || !strings.Contains(err.Error(), "must begin with https://") {
		t.Errorf("fetch: %v", err)
	}
}

func TestTheServerOfTheKeysNeedsAGoodCertificate(t *testing.T) {
	i := newIssuer(t)
	text, _ := json.Marshal(map[string]any{"keys": i.jwks("x")})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) }))
	server.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	_, logger := newLog()
	cfg := *remoteConfig(server.URL, rs256).JWT
	if err := newRemoteKeys(cfg, logger).fetch(t.Context()); err == nil {
		t.Error("a certificate of an unknown authority is good enough")
	}
	cfg.CA = keyFile(t, certificatePEM(server.Certificate().Raw))
	if err := newRemoteKeys(cfg, logger).fetch(t.Context()); err != nil {
		t.Errorf("with its CA: %v", err)
	}
}
