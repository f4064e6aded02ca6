package auth

import (
	"strings"
	"testing"
)

// validator is what the configurations have in common.
type validator interface {
	Validate(report func(key, problem string))
}

func TestAConfigurationThatCanNotWorkIsReported(t *testing.T) {
	jwt := func(change func(*JWTConfig)) *JWTConfig {
		c := &JWTConfig{Algorithms: []string{"RS256", "EdDSA"}, JWKSURL: "https://issuer.test/keys", Issuer: "i", Audience: "a"}
		change(c)
		return c
	}
	for _, c := range []struct {
		name string
		cfg  validator
		want string // the key and the start of the problem; empty: none
	}{
		{"a server's certificate", &ServerTLSConfig{Cert: "/c", Key: "/k", ClientCA: "/ca"}, ""},
		{"a relative path", &ServerTLSConfig{Cert: "/c", Key: "k"}, "key: must start with /"},
		{"the system's CAs", &ClientTLSConfig{CA: SystemCA}, ""},
		{"a relative CA", &ClientTLSConfig{CA: "ca.crt"}, "ca: must start with /"},
		{"a certificate without a key", &ClientTLSConfig{CA: "/ca", Cert: "/c"}, "cert: a certificate is of no use"},
		{"a key without a certificate", &ClientTLSConfig{CA: "/ca", Key: "/k"}, "key: a key is of no use"},
		{"a relative token file", &DialConfig{TokenFile: "t"}, "token_file: must start with /"},
		{"published keys", jwt(func(*JWTConfig) {}), ""},
		{"published keys on this machine", jwt(func(c *JWTConfig) { c.JWKSURL = "http://[::1]:80/keys" }), ""},
		{"keys in the clear", jwt(func(c *JWTConfig) { c.JWKSURL = "http://issuer.test/keys" }), "jwks_url: must begin with https://"},
		{"keys from a file address", jwt(func(c *JWTConfig) { c.JWKSURL = "file:///keys" }), "jwks_url: is no address"},
		{"a password in the address", jwt(func(c *JWTConfig) { c.JWKSURL = "https://u:p@issuer.test/keys" }), "jwks_url: a user in the address"},
		{"no keys", jwt(func(c *JWTConfig) { c.JWKSURL = "" }), "key_file: there is no key"},
		{"keys from both", jwt(func(c *JWTConfig) { c.KeyFile = "/k" }), "jwks_url: the keys come from a file or from a server"},
		{"a CA for nothing", jwt(func(c *JWTConfig) { c.JWKSURL, c.KeyFile, c.CA = "", "/k", "/ca" }), "ca: it is for the server"},
		{"a mix of secret and public keys", jwt(func(c *JWTConfig) { c.Algorithms = []string{"RS256", "HS256"} }), "algorithms[1]: HS256 can't be mixed"},
		{"a published secret", jwt(func(c *JWTConfig) { c.Algorithms = []string{"HS256"} }), "jwks_url: a secret for HS256"},
		{"none", jwt(func(c *JWTConfig) { c.Algorithms = []string{"none"} }), "algorithms[0]: there are HS256"},
	} {
		var got []string
		c.cfg.Validate(func(key, problem string) { got = append(got, key+": "+problem) })
		switch {
		case c.want == "" && len(got) > 0, c.want != "" && len(got) == 0:
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		case c.want != "" && !strings.HasPrefix(got[0], c.want):
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
