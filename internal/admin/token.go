package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// LoadToken reads data_dir/admin.token, and makes it (mode 0600) when there is
// none.
func LoadToken(dataDir string) (string, error) {
	path := filepath.Join(dataDir, "admin.token")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("admin: reading the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" { // not there, or cut off by a power cut when it was made
		token = rand.Text()
		return token, writeToken(path, token)
	}
	if len(token) < 16 {
		return "", fmt.Errorf("admin: %s holds no token of 16 characters or more; delete it, and a new one is made", path)
	}
	return token, nil
}

// writeToken puts the file in its place whole, or not at all.
func writeToken(path, token string) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("admin: making the token: %w", err)
	}
	_, err = f.WriteString(token + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("admin: making the token: %w", err)
	}
	return nil
}

// guarded lets a request through that carries the token and comes from no other
// site.
func (s *Server) guarded(next http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte("Bearer " + s.token))
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.ownHost(r.Host) || !s.ownOrigin(r) {
			s.refuse(w, http.StatusForbidden, "this request comes from another site; use an IP address, localhost, or the name in [admin] listen")
			return
		}
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="edge-agent"`)
			s.refuse(w, http.StatusUnauthorized, "changing anything takes the token in data_dir/admin.token: Authorization: Bearer TOKEN")
			return
		}
		next(w, r)
	}
}

// ownHost is true for an address, localhost, or the host that is configured. A
// name that an attacker's DNS points at us is none of these (DNS rebinding).
func (s *Server) ownHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	configured, _, err := net.SplitHostPort(s.listen)
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil || err == nil && host == configured && host != ""
}

// ownOrigin is true when no page sent the request, or one of this server did.
func (s *Server) ownOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}
