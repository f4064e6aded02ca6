package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	fetchEvery   = time.Hour
	fetchAgain   = time.Minute // after a failure, and for an unknown key
	fetchTime    = 10 * time.Second
	maxKeysReply = 1 << 20 // bytes
	maxRedirects = 3
	// patience is how long a token waits for keys that are being fetched. A peer
	// has ten seconds for HELLO by default.
	patience = 3 * time.Second
)

// remoteKeys are fetched from a JWKS address. While its server is away those
// that are known stay in use.
type remoteKeys struct {
	cfg     JWTConfig
	log     *slog.Logger
	current atomic.Pointer[keySet]
	wanted  chan struct{} // asks run to fetch now

	mu    sync.Mutex
	round chan struct{} // closed when the fetch is over that is due now; nil: none is
	last  time.Time     // when the last one was over
}

var _ keySource = (*remoteKeys)(nil)

func newRemoteKeys(cfg JWTConfig, log *slog.Logger) *remoteKeys {
	return &remoteKeys{cfg: cfg, log: log, wanted: make(chan struct{}, 1), round: make(chan struct{})}
}

func (r *remoteKeys) find(id, algorithm string) ([]jwt.VerificationKey, error) {
	keys := r.known(id, algorithm)
	if len(keys) == 0 {
		r.renew()
		keys = r.known(id, algorithm)
	}
	switch {
	case len(keys) > 0:
		return keys, nil
	case r.current.Load() == nil:
		return nil, &Error{Unavailable, "the keys to check tokens with could not be fetched yet: try again later"}
	}
	return nil, unknownKey()
}

func (r *remoteKeys) known(id, algorithm string) []jwt.VerificationKey {
	if set := r.current.Load(); set != nil {
		return set.fitting(id, algorithm)
	}
	return nil
}

// renew waits for a fetch, if one is under way or may be made now.
func (r *remoteKeys) renew() {
	r.mu.Lock()
	if r.round == nil {
		if time.Since(r.last) < fetchAgain {
			r.mu.Unlock()
			return
		}
		r.round = make(chan struct{})
		r.wanted <- struct{}{} // has room: there is one round at a time
	}
	round := r.round
	r.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-round:
	case <-timer.C:
	}
}

func (r *remoteKeys) run(ctx context.Context) error {
	failing := false
	for ctx.Err() == nil {
		err := r.fetch(ctx)
		r.over()
		wait := fetchEvery
		if err != nil {
			wait = fetchAgain
		}
		r.tell(ctx, failing, err)
		failing = err != nil

		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.wanted:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// tell logs when the server goes away and when it is back.
func (r *remoteKeys) tell(ctx context.Context, failing bool, err error) {
	switch {
	case ctx.Err() != nil, failing == (err != nil):
	case failing:
		r.log.Info("the keys for tokens are fetched again", "jwks_url", r.cfg.JWKSURL)
	default:
		r.log.Warn("the keys for tokens can't be fetched; those that are known stay in use", "jwks_url", r.cfg.JWKSURL, "error", err, "again_in", fetchAgain)
	}
}

// over ends a round. Whoever asked for another fetch meanwhile had this one.
func (r *remoteKeys) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.round != nil {
		close(r.round)
		r.round = nil
	}
	select {
	case <-r.wanted:
	default:
	}
	r.last = time.Now()
}

func (r *remoteKeys) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	client, err := r.client()
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.cfg.JWKSURL, http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxKeysReply+1))
	switch {
	case err != nil:
		return err
	case len(text) > maxKeysReply:
		return fmt.Errorf("the answer has more than %d bytes", maxKeysReply)
	}
	set, err := parseJWKS(text, r.cfg.Algorithms)
	if err != nil {
		return err
	}
	r.current.Store(&set)
	return nil
}

// client is a new one each time: an hour is longer than a connection lives, and
// the CA's file may have changed.
func (r *remoteKeys) client() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.cfg.CA != "" {
		pool, err := loadPool("ca", r.cfg.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config,
			ForceAttemptHTTP2: true, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(to *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			if problem := checkURL(to.URL.String()); problem != "" {
				return fmt.Errorf("redirected to an address that %s", problem)
			}
			return nil
		},
	}, nil
}

// jwk is a key in a JWKS (RFC 7517, section 4; RFC 7518, section 6; RFC 8037,
// section 2).
type jwk struct {
	Type      string `json:"kty"`
	ID        string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	Curve     string `json:"crv"`
	N         string `json:"n"`
	E         string `json:"e"`
	X         string `json:"x"`
	Y         string `json:"y"`
}

// parseJWKS takes the keys that can be used; others are skipped, as RFC 7517,
// section 5, asks.
func parseJWKS(text []byte, algorithms []string) (keySet, error) {
	var reply struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(text, &reply); err != nil {
		return nil, fmt.Errorf("the answer is no JWKS: %w", err)
	}
	var set keySet
	for i := range reply.Keys {
		j := &reply.Keys[i]
		public := j.public()
		if public == nil || j.Use != "" && j.Use != "sig" {
			continue
		}
		k, err := newKey(j.ID, public)
		if err != nil || j.Algorithm != "" && j.Algorithm != k.algorithm {
			continue
		}
		set = append(set, k)
	}
	if err := set.usable(algorithms); err != nil {
		return nil, fmt.Errorf("the answer is of no use: %w", err)
	}
	return set, nil
}

// public is nil if j is no good, or of a kind that is not used here. A secret
// that somebody publishes ("oct") is no secret.
func (j *jwk) public() any {
	switch {
	case j.Type == "RSA":
		n, e := unpack(j.N), unpack(j.E)
		exponent := new(big.Int).SetBytes(e)
		// crypto/rsa takes odd exponents of up to 31 bits.
		if len(n) == 0 || len(n) > maxRSA/8+1 || exponent.BitLen() > 31 || exponent.Bit(0) == 0 || exponent.Cmp(big.NewInt(3)) < 0 {
			return nil
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	case j.Type == "EC" && j.Curve == "P-256":
		x, y := unpack(j.X), unpack(j.Y)
		if len(x) != 32 || len(y) != 32 {
			return nil
		}
		point := append(append([]byte{4}, x...), y...) // uncompressed (SEC 1, section 2.3.3)
		k, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		if err != nil {
			return nil
		}
		return k
	case j.Type == "OKP" && j.Curve == "Ed25519":
		if x := unpack(j.X); len(x) == ed25519.PublicKeySize {
			return ed25519.PublicKey(x)
		}
	}
	return nil
}

// unpack reads base64url without padding; nil if it is not that.
func unpack(s string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}
