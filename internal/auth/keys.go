package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxKeys bounds how many keys one token is tried with.
	maxKeys = 32
	// minSecret: a key for HS256 has at least the size of the hash (RFC 7518,
	// section 3.2).
	minSecret = 32
	// minRSA and maxRSA are sizes in bits: less is refused by RFC 7518, section
	// 3.3, more costs time and brings nothing.
	minRSA, maxRSA = 2048, 8192
)

// key is for one algorithm, which its type decides and no token can choose.
type key struct {
	id        string // what tokens call it; empty: they need not name it
	algorithm string
	value     jwt.VerificationKey
}

// newKey takes a public key.
func newKey(id string, public any) (key, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSA || bits > maxRSA {
			return key{}, fmt.Errorf("an RSA key has %d bits; from %d to %d are taken", bits, minRSA, maxRSA)
		}
		return key{id, rs256, k}, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return key{}, fmt.Errorf("a key on the curve %s; ES256 takes P-256", k.Params().Name)
		}
		return key{id, es256, k}, nil
	case ed25519.PublicKey:
		return key{id, edDSA, k}, nil
	}
	return key{}, fmt.Errorf("a key of type %T, which no algorithm here takes", public)
}

// keySet never changes.
type keySet []key

// fitting are those for a token that names this key, or none, and this
// algorithm.
func (s keySet) fitting(id, algorithm string) (keys []jwt.VerificationKey) {
	for _, k := range s {
		if k.algorithm == algorithm && (id == "" || k.id == "" || k.id == id) {
			keys = append(keys, k.value)
		}
	}
	return keys
}

// usable checks that tokens can be checked with s.
func (s keySet) usable(algorithms []string) error {
	if len(s) > maxKeys {
		return fmt.Errorf("there are %d keys, at most %d are taken", len(s), maxKeys)
	}
	if !slices.ContainsFunc(s, func(k key) bool { return slices.Contains(algorithms, k.algorithm) }) {
		return fmt.Errorf("there is no key for %s", strings.Join(algorithms, ", "))
	}
	return nil
}

// fileKeys are read from a file, and again when it changes.
type fileKeys struct {
	watcher *watcher
	current atomic.Pointer[keySet]
}

var _ keySource = (*fileKeys)(nil)

func newFileKeys(cfg JWTConfig, log *slog.Logger) (*fileKeys, error) {
	k := new(fileKeys)
	var err error
	k.watcher, err = newWatcher(func() error {
		text, err := readFile(cfg.KeyFile)
		if err != nil {
			return err
		}
		set, err := parseKeys(text, cfg.Algorithms)
		if err != nil {
			return fmt.Errorf("%s: %w", cfg.KeyFile, err)
		}
		k.current.Store(&set)
		return nil
	}, log, cfg.KeyFile)
	return k, err
}

func (k *fileKeys) find(id, algorithm string) ([]jwt.VerificationKey, error) {
	keys := k.current.Load().fitting(id, algorithm)
	if len(keys) == 0 {
		return nil, unknownKey()
	}
	return keys, nil
}

func (k *fileKeys) run(ctx context.Context) error {
	k.watcher.run(ctx, func() {})
	return nil
}

func unknownKey() error {
	return &Error{Unauthorized, "the token is signed with a key that is not known here (kid)"}
}

// parseKeys reads a key file.
func parseKeys(text []byte, algorithms []string) (keySet, error) {
	if slices.Contains(algorithms, hs256) {
		return parseSecret(text)
	}
	var set keySet
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		public, err := parsePublic(block)
		if err != nil {
			return nil, err
		}
		k, err := newKey("", public)
		if err != nil {
			return nil, err
		}
		set = append(set, k)
	}
	if len(set) == 0 {
		return nil, errors.New("there is no public key or certificate in PEM in it")
	}
	return set, set.usable(algorithms)
}

func parseSecret(text []byte) (keySet, error) {
	if bytes.Contains(text, []byte("-----BEGIN ")) {
		return nil, errors.New("it is PEM, and HS256 takes a secret: 32 random bytes or more")
	}
	secret := bytes.TrimRight(text, "\r\n")
	if len(secret) < minSecret {
		return nil, fmt.Errorf("the secret has %d bytes; HS256 takes at least %d", len(secret), minSecret)
	}
	return keySet{{algorithm: hs256, value: secret}}, nil
}

func parsePublic(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		return nil, errors.New("it holds a private key, which only the issuer may have: put the public one there")
	}
	return nil, fmt.Errorf("it holds %q, which is no public key", block.Type)
}
