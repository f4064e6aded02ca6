package auth

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ServerTLSConfig is the tls table of a [[listen]].
type ServerTLSConfig struct {
	// Cert is the server's certificate as a PEM file, followed by those between
	// it and its CA. When the files change they are read again; connections stay.
	Cert string `toml:"cert" required:"true" example:"\"/etc/edge-agent/server.crt\""`
	// Key that belongs to Cert, as a PEM file.
	Key string `toml:"key" required:"true" example:"\"/etc/edge-agent/server.key\""`
	// ClientCA demands a certificate of every client, made by a CA in this PEM
	// file. What the client calls itself must be a name in its certificate.
	ClientCA string `toml:"client_ca"`
}

// Validate reports what is wrong with c, by the key it is wrong in.
func (c *ServerTLSConfig) Validate(report func(key, problem string)) {
	absolute("cert", c.Cert, report)
	absolute("key", c.Key, report)
	absolute("client_ca", c.ClientCA, report)
}

// SystemCA as ClientTLSConfig.CA means the CAs that the machine trusts.
const SystemCA = "system"

// ClientTLSConfig is the tls table of a [[link]].
type ClientTLSConfig struct {
	// CA that has made the server's certificate, as a PEM file; "system" takes
	// the CAs that this machine trusts.
	CA string `toml:"ca" required:"true" example:"\"/etc/edge-agent/ca.crt\""`
	// Cert is our own certificate as a PEM file, where the server demands one.
	Cert string `toml:"cert"`
	// Key that belongs to Cert, as a PEM file.
	Key string `toml:"key"`
	// ServerName that must be in the server's certificate; the host of the
	// address unless set.
	ServerName string `toml:"server_name"`
}

// Validate reports what is wrong with c, by the key it is wrong in.
func (c *ClientTLSConfig) Validate(report func(key, problem string)) {
	if c.CA != SystemCA {
		absolute("ca", c.CA, report)
	}
	absolute("cert", c.Cert, report)
	absolute("key", c.Key, report)
	if strings.ContainsAny(c.ServerName, ":/ ") && net.ParseIP(c.ServerName) == nil {
		report("server_name", "is a name or IP address alone, as it stands in the certificate: write such as \"gw-01.example\"")
	}
	switch {
	case c.Cert != "" && c.Key == "":
		report("cert", "a certificate is of no use without its key: set key too")
	case c.Cert == "" && c.Key != "":
		report("key", "a key is of no use without its certificate: set cert too")
	}
}

// ListenConfig is the auth table of a [[listen]].
type ListenConfig struct {
	// JWT demands a token of every peer that says HELLO.
	JWT *JWTConfig `toml:"jwt"`
}

// DialConfig is the auth table of a [[link]].
type DialConfig struct {
	// TokenFile holds the token to show. It is read each time we connect.
	TokenFile string `toml:"token_file" required:"true" example:"\"/etc/edge-agent/token\""`
}

// Validate reports what is wrong with c, by the key it is wrong in.
func (c *DialConfig) Validate(report func(key, problem string)) {
	absolute("token_file", c.TokenFile, report)
}

// JWTConfig says which tokens are good (RFC 7519). A token needs the claims sub
// (what the peer calls itself), exp, iss and aud. It may have devices, a list
// of patterns of other device ids that the peer may speak for, and roles, a
// list of publish, command and operate; without it the role is publish.
type JWTConfig struct {
	// Algorithms that tokens may be signed with: "RS256", "ES256" and "EdDSA", or
	// "HS256" alone.
	Algorithms []string `toml:"algorithms" required:"true" example:"[\"RS256\"]"`
	// KeyFile holds the public keys or certificates as PEM, or for HS256 the
	// secret itself, at least 32 bytes. It is read again when it changes.
	KeyFile string `toml:"key_file"`
	// JWKSURL is where the public keys are published (RFC 7517); they are fetched
	// every hour, and when a token names an unknown one. The keys that are known
	// stay in use while the server is away.
	JWKSURL string `toml:"jwks_url"`
	// CA that has made the certificate of JWKSURL's server, as a PEM file; the
	// CAs that this machine trusts unless set.
	CA string `toml:"ca"`
	// Issuer that tokens must name (iss).
	Issuer string `toml:"issuer" required:"true" example:"\"https://issuer.example\""`
	// Audience that tokens must be meant for (aud).
	Audience string `toml:"audience" required:"true" example:"\"edge-agent\""`
	// Leeway is how far the clocks of issuer and agent may be apart.
	Leeway time.Duration `toml:"leeway" default:"10s" min:"0s" max:"5m"`
}

// The algorithms (RFC 7518, section 3.1; RFC 8037, section 3.1).
const (
	hs256 = "HS256"
	rs256 = "RS256"
	es256 = "ES256"
	edDSA = "EdDSA"
)

// Validate reports what is wrong with c, by the key it is wrong in.
func (c *JWTConfig) Validate(report func(key, problem string)) {
	if c.Algorithms != nil && len(c.Algorithms) == 0 {
		report("algorithms", `it is empty, so no token would be good: write ["ES256"], or what your issuer signs with`)
	}
	for i, a := range c.Algorithms {
		switch a {
		case hs256:
			// A public key must never be taken for a secret.
			if len(c.Algorithms) > 1 {
				report(element("algorithms", i), "HS256 can't be mixed with others: a secret and a public key are different things")
			}
		case rs256, es256, edDSA:
		default:
			report(element("algorithms", i), "there are HS256, RS256, ES256 and EdDSA")
		}
	}
	absolute("key_file", c.KeyFile, report)
	absolute("ca", c.CA, report)
	switch {
	case c.KeyFile == "" && c.JWKSURL == "":
		report("key_file", `there is no key to check tokens with: write key_file = "/path" or jwks_url = "https://…"`)
	case c.KeyFile != "" && c.JWKSURL != "":
		report("jwks_url", "the keys come from a file or from a server: keep key_file or jwks_url")
	case c.JWKSURL == "" && c.CA != "":
		report("ca", "it is for the server of jwks_url, and there is none")
	case c.JWKSURL != "" && slices.Contains(c.Algorithms, hs256):
		report("jwks_url", "a secret for HS256 is not published: use key_file")
	case c.JWKSURL != "":
		if problem := checkURL(c.JWKSURL); problem != "" {
			report("jwks_url", problem)
		}
	}
}

func element(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

// checkURL: whoever can change the keys on their way can forge every token.
func checkURL(text string) (problem string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return "is no address such as https://issuer.example/keys"
	case u.User != nil:
		return "a user in the address would show up in logs"
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return ""
	}
	return "must begin with https:// (http:// only to this machine): keys that came in the clear could be anybody's"
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

func absolute(key, path string, report func(key, problem string)) {
	if path != "" && !filepath.IsAbs(path) {
		report(key, "must start with /: a relative path would depend on where the agent was started")
	}
}
