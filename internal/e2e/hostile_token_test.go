package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// issuer signs tokens that an agent trusts.
type issuer struct {
	t      *testing.T
	key    *ecdsa.PrivateKey
	public []byte // in PEM
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t, key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
}

// settings of a listener that wants its tokens.
func (i *issuer) settings() string {
	i.t.Helper()
	path := filepath.Join(i.t.TempDir(), "issuer.pem")
	if err := os.WriteFile(path, i.public, 0o600); err != nil {
		i.t.Fatal(err)
	}
	return fmt.Sprintf(`auth = { jwt = { algorithms = ["ES256"], key_file = %q, issuer = "https://issuer.test", audience = "gw-01", leeway = "0s" } }`+"\n", path)
}

// claims of a good token for press-7, but for these; nil takes one away.
func claims(but jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "press-7", "iss": "https://issuer.test", "aud": "gw-01", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(c, but)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func (i *issuer) token(but jwt.MapClaims) string {
	return i.sign(jwt.SigningMethodES256, i.key, claims(but))
}

func (i *issuer) sign(method jwt.SigningMethod, key any, c jwt.MapClaims) string {
	i.t.Helper()
	text, err := jwt.NewWithClaims(method, c).SignedString(key)
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

func TestAGoodDeviceDoesNotFeelAFloodOfBadTokens(t *testing.T) {
	i := newIssuer(t)
	a, address := besieged(t, "tcp", i.settings())
	good := newGoodDevice(t, mcp.Config{Name: "good", Token: i.token(jwt.MapClaims{"sub": "good"})}, tcp.NewDialer(address, nil))
	good.feelsNothing(t, a, address, nil, ordeal{attack: "a flood of bad tokens", counts: []rise{{refusedFor("unauthorized"), 100}}})
}

func TestABadTokenIsRefusedWithItsCodeAndCounted(t *testing.T) {
	t.Parallel()
	trusted, foreign := newIssuer(t), newIssuer(t)
	a, address, out := plant(t, "tcp", trusted.settings())
	good := trusted.token(nil)
	past := time.Now().Add(-time.Second).Unix()
	for _, c := range []struct {
		what   string
		token  string
		code   mcp.Code
		reason string
	}{
		{"no token", "", mcp.CodeUnauthorized, "unauthorized"},
		{"no JWT", "press-7", mcp.CodeUnauthorized, "unauthorized"},
		{"an expired one", trusted.token(jwt.MapClaims{"exp": past}), mcp.CodeTokenExpired, "token_expired"},
		{"one that never expires", trusted.token(jwt.MapClaims{"exp": nil}), mcp.CodeUnauthorized, "unauthorized"},
		{"one for another audience", trusted.token(jwt.MapClaims{"aud": "gw-02"}), mcp.CodeUnauthorized, "unauthorized"},
		{"one of another issuer", trusted.token(jwt.MapClaims{"iss": "https://elsewhere.test"}), mcp.CodeUnauthorized, "unauthorized"},
		{"one that is not valid yet", trusted.token(jwt.MapClaims{"nbf": time.Now().Add(time.Minute).Unix()}), mcp.CodeUnauthorized, "unauthorized"},
		{"one without a subject", trusted.token(jwt.MapClaims{"sub": nil}), mcp.CodeUnauthorized, "unauthorized"},
		{"one signed with another key", foreign.token(nil), mcp.CodeUnauthorized, "unauthorized"},
		{"an expired one signed with another key", foreign.token(jwt.MapClaims{"exp": past}), mcp.CodeUnauthorized, "unauthorized"},
		{"one signed with none", trusted.sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(nil)), mcp.CodeUnauthorized, "unauthorized"},
		{"one signed with the public key as a secret", trusted.sign(jwt.SigningMethodHS256, trusted.public, claims(nil)), mcp.CodeUnauthorized, "unauthorized"},
		{"one without its signature", good[:len(good)-86], mcp.CodeUnauthorized, "unauthorized"},
		{"one with a changed signature", good[:len(good)-4] + "AAAA", mcp.CodeUnauthorized, "unauthorized"},
		{"another's", trusted.token(jwt.MapClaims{"sub": "press-8"}), mcp.CodeNotAllowed, "not_allowed"},
		{"one without the role", trusted.token(jwt.MapClaims{"roles": []string{"command"}}), mcp.CodeNotAllowed, "not_allowed"},
	} {
		counted := a.risen(rise{refusedFor(c.reason), 1})
		p := connect(t, address)
		p.write(helloFrame("press-7", c.token))
		p.endsWith(c.what, c.code)
		p.conn.Close()
		eventually(t, patience, c.what+" to be counted as "+c.reason, counted)
	}
	p := connect(t, address)
	p.write(helloFrame("press-7", good))
	p.wants(mcp.CommandWelcome)
	p.write(publishFrame("press-7"))
	delivered(t, out, "press-7", 1)
	if peers := a.peers(); len(peers) != 1 || peers["press-7"] == "" {
		t.Errorf("the peers are %v", peers)
	}
}

func TestAPeerPublishesOnlyForTheDevicesOfItsToken(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	a, address, out := plant(t, "tcp", i.settings())
	token := i.token(jwt.MapClaims{"devices": []string{"boiler-*"}})
	for _, c := range []struct {
		device string
		may    bool
	}{{"press-7", true}, {"boiler-1", true}, {"press-8", false}, {"boiler", false}} {
		p := connect(t, address)
		p.write(helloFrame("press-7", token))
		p.wants(mcp.CommandWelcome)
		counted := a.risen(rise{refusedFor("not_allowed"), 1})
		p.write(publishFrame(c.device))
		if c.may {
			p.wants(mcp.CommandAck)
			delivered(t, out, c.device, 1)
			p.conn.Close()
			continue
		}
		p.endsWith("a record of "+c.device, mcp.CodeNotAllowed)
		p.conn.Close()
		eventually(t, patience, "it to be counted", counted)
		if n := a.lastSeq(c.device); n > 0 {
			t.Errorf("%d records of %s are stored", n, c.device)
		}
	}
}

func TestATokenThatExpiresEndsTheSessionAfterAWarning(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	a, address, _ := plant(t, "tcp", i.settings())
	expiry := time.Now().Add(4 * time.Second).Truncate(time.Second)
	counted := a.risen(rise{refusedFor("token_expired"), 1})
	p := connect(t, address)
	p.write(helloFrame("press-7", i.token(jwt.MapClaims{"exp": expiry.Unix()})))
	p.wants(mcp.CommandWelcome)
	var warning mcp.Request
	if err := warning.Unmarshal(p.wants(mcp.CommandRequest).Payload); err != nil {
		t.Fatal(err)
	}
	left, err := strconv.Atoi(string(warning.Payload))
	if warning.Method != "token-expires" || err != nil || left > 4 || warning.ContentType != "text/plain" {
		t.Errorf("the warning is %+v", warning)
	}
	answer := mcp.Response{ID: warning.ID}
	p.write(frame(mcp.CommandResponse, answer.Append(nil)))
	p.write(publishFrame("press-7"))
	p.wants(mcp.CommandAck)
	p.endsWith("the session", mcp.CodeTokenExpired)
	if late := time.Since(expiry); late < 0 || late > 2*time.Second {
		t.Errorf("it ends %v after its token", late)
	}
	eventually(t, patience, "it to be counted", counted)
	p = connect(t, address)
	p.write(helloFrame("press-7", i.token(nil)))
	p.wants(mcp.CommandWelcome)
}
