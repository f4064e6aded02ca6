package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// expiryWarning is how long before a certificate's end we begin to warn.
	expiryWarning = 30 * 24 * time.Hour
	warnAgain     = 24 * time.Hour
	// sessions are how many servers' tickets a client keeps, to shake hands faster
	// when it connects again.
	sessions = 16
)

// TLS is a tls.Config made of files, and made anew when they change. It may be
// used concurrently.
type TLS struct {
	log     *slog.Logger
	watcher *watcher
	current atomic.Pointer[material]
	now     func() time.Time
	warned  time.Time // Run's
}

type material struct {
	config *tls.Config
	expiry time.Time
}

// NewServerTLS loads the configuration of a listener. It fails with what to do.
func NewServerTLS(cfg ServerTLSConfig, log *slog.Logger) (*TLS, error) {
	return newTLS(log, func() (*material, error) {
		m := &material{config: &tls.Config{MinVersion: tls.VersionTLS13}}
		if err := m.addPair(cfg.Cert, cfg.Key); err != nil {
			return nil, err
		}
		if cfg.ClientCA != "" {
			pool, err := loadPool("client_ca", cfg.ClientCA)
			if err != nil {
				return nil, err
			}
			m.config.ClientCAs = pool
			m.config.ClientAuth = tls.RequireAndVerifyClientCert
		}
		return m, nil
	}, cfg.Cert, cfg.Key, cfg.ClientCA)
}

// NewClientTLS loads the configuration of what we dial. It fails with what to do.
func NewClientTLS(cfg ClientTLSConfig, log *slog.Logger) (*TLS, error) {
	ca := cfg.CA
	if ca == SystemCA {
		ca = ""
	}
	return newTLS(log, func() (*material, error) {
		m := &material{config: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			ServerName:         cfg.ServerName,
			ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
		}}
		if cfg.Cert != "" {
			if err := m.addPair(cfg.Cert, cfg.Key); err != nil {
				return nil, err
			}
		}
		if ca != "" {
			pool, err := loadPool("ca", ca)
			if err != nil {
				return nil, err
			}
			m.config.RootCAs = pool
		}
		return m, nil
	}, ca, cfg.Cert, cfg.Key)
}

func newTLS(log *slog.Logger, load func() (*material, error), files ...string) (t *TLS, err error) {
	t = &TLS{log: log, now: time.Now}
	t.watcher, err = newWatcher(func() error {
		m, err := load()
		if err != nil {
			return err
		}
		t.current.Store(m)
		return nil
	}, log, files...)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// addPair loads our own certificate.
func (m *material) addPair(cert, key string) error {
	certPEM, err := readFile(cert)
	if err != nil {
		return fmt.Errorf("cert: %w", err)
	}
	keyPEM, err := readFile(key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("cert %s and key %s: %w", cert, key, err)
	}
	m.config.Certificates = []tls.Certificate{pair}
	for _, raw := range pair.Certificate {
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			return fmt.Errorf("cert %s: %w", cert, err)
		}
		if m.expiry.IsZero() || c.NotAfter.Before(m.expiry) {
			m.expiry = c.NotAfter
		}
	}
	return nil
}

func loadPool(key, path string) (*x509.CertPool, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %s holds no certificate in PEM", key, path)
	}
	return pool, nil
}

// Config is the configuration for one new connection. The method is a
// transport.TLS. It must not be changed.
func (t *TLS) Config() *tls.Config { return t.current.Load().config }

// Expiry is when the first of our own certificates ends; the zero time if we
// have none.
func (t *TLS) Expiry() time.Time { return t.current.Load().expiry }

// Problem is why files that have changed are not in use, so that the agent would
// not start with them; empty when all is well.
func (t *TLS) Problem() string { return t.watcher.problem() }

// Run looks at the files until ctx ends. Good ones serve the next connection
// after a few seconds; those that are open stay as they are. Of files that are
// no good it warns, and goes on with what it has. It warns every day of a
// certificate that ends in less than 30 days.
func (t *TLS) Run(ctx context.Context) error {
	t.watcher.run(ctx, t.warn)
	return nil
}

func (t *TLS) warn() {
	expiry, now := t.Expiry(), t.now()
	left := expiry.Sub(now)
	if expiry.IsZero() || left > expiryWarning || now.Sub(t.warned) < warnAgain {
		return
	}
	t.warned = now
	if left <= 0 {
		t.log.Error("our certificate has expired, and peers refuse it: renew it", "expired", expiry, "files", t.watcher.files)
		return
	}
	t.log.Warn("our certificate will expire: renew it", "expires", expiry, "days_left", int(left.Hours()/24), "files", t.watcher.files)
}
