package auth

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func certificatePEM(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

func framers() transport.Framer { return new(transporttest.LengthFramer) }

// certificates writes a CA's files into a folder.
func certificates(t *testing.T) (dir string, ca *transporttest.CA) {
	t.Helper()
	dir, ca = t.TempDir(), transporttest.NewCA(t)
	ca.Files(dir)
	return dir, ca
}

func serverConfig(dir string) ServerTLSConfig {
	return ServerTLSConfig{Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key"), ClientCA: filepath.Join(dir, "ca.crt")}
}

func clientConfig(dir string) ClientTLSConfig {
	return ClientTLSConfig{
		CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "client.crt"), Key: filepath.Join(dir, "client.key"),
		ServerName: transporttest.ServerName,
	}
}

func newTLSPair(t *testing.T, dir string) (server, client *TLS, logged *log) {
	t.Helper()
	logged, log := newLog()
	server, err := NewServerTLS(serverConfig(dir), log)
	if err != nil {
		t.Fatal(err)
	}
	client, err = NewClientTLS(clientConfig(dir), log)
	if err != nil {
		t.Fatal(err)
	}
	server.watcher.every, client.watcher.every = 5*time.Millisecond, 5*time.Millisecond
	return server, client, logged
}

// exchange says something on one Conn and hears it on the other.
func exchange(t *testing.T, from, to transport.Conn) error {
	t.Helper()
	if err := from.Write(transporttest.Frame([]byte("hello"))); err != nil {
		return err
	}
	_ = to.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := to.Read()
	return err
}

// connect dials, and says hello.
func connect(t *testing.T, l transport.Listener, d transport.Dialer) (client, server transport.Conn, err error) {
	t.Helper()
	accepted := make(chan transport.Conn, 1)
	go func() {
		c, err := l.Accept(t.Context())
		if err == nil {
			_, _ = c.Read() // shakes hands
		}
		accepted <- c
	}()
	client, err = d.Dial(t.Context(), framers())
	if err == nil {
		err = client.Write(transporttest.Frame([]byte("hello")))
	}
	return client, <-accepted, err
}

// The files change as Kubernetes changes them: a link to their folder is swapped.
func TestNewCertificatesServeNewConnectionsAndOldOnesStayOpen(t *testing.T) {
	first, _ := certificates(t)
	second, _ := certificates(t) // another authority for everybody
	dir := filepath.Join(t.TempDir(), "current")
	swap := func(to string) {
		if err := errors.Join(os.Symlink(to, dir+".new"), os.Rename(dir+".new", dir)); err != nil {
			t.Fatal(err)
		}
	}
	swap(first)
	server, client, logged := newTLSPair(t, dir)
	background(t, server.Run)
	background(t, client.Run)
	l, err := tcp.Listen(t.Context(), "127.0.0.1:0", framers, server.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := tcp.NewDialer(strings.TrimPrefix(l.Endpoint(), "tcp "), client.Config)
	oldClient, oldServer, err := connect(t, l, d)
	if err != nil {
		t.Fatal(err)
	}
	defer oldClient.Close()
	defer oldServer.Close()

	before, clientBefore := server.Config(), client.Config()
	if server.Config() != before {
		t.Error("another configuration without a change")
	}
	swap(second)
	eventually(t, "the new configuration", func() bool { return server.Config() != before && client.Config() != clientBefore })

	newClient, newServer, err := connect(t, l, d)
	if err != nil {
		t.Fatalf("with the new certificates: %v", err)
	}
	defer newClient.Close()
	defer newServer.Close()
	for _, pair := range [][2]transport.Conn{{oldClient, oldServer}, {newServer, newClient}} {
		if err := exchange(t, pair[0], pair[1]); err != nil {
			t.Error(err)
		}
	}
	if n := logged.count("no good"); n > 0 {
		t.Errorf("%d warnings", n)
	}
}

func TestFilesThatAreNoGoodChangeNothingAndAreReportedOnce(t *testing.T) {
	dir, _ := certificates(t)
	server, _, logged := newTLSPair(t, dir)
	background(t, server.Run)
	before := server.Config()
	key := filepath.Join(dir, "server.key")
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for n, bad := range []func(){
		func() { write(t, key, []byte("nonsense")) },
		func() { os.Remove(key) },
		func() {
			other, _ := certificates(t)
			text, _ := os.ReadFile(filepath.Join(other, "server.key"))
			write(t, key, text)
		},
	} {
		bad()
		eventually(t, "a warning", func() bool { return logged.count("changed files are no good") == n+1 })
		<-time.After(50 * time.Millisecond) // ten more looks
		if again := logged.count("changed files are no good"); again != n+1 || server.Config() != before {
			t.Errorf("%d warnings of change %d", again, n+1)
		}
	}
	write(t, key, good)
	eventually(t, "the good key", func() bool { return server.Config() != before })
}

func TestAClientOfAnotherAuthorityIsRefused(t *testing.T) {
	dir, _ := certificates(t)
	server, _, _ := newTLSPair(t, dir)
	l, err := tcp.Listen(t.Context(), "127.0.0.1:0", framers, server.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stranger, _ := certificates(t)
	cfg := clientConfig(stranger)
	cfg.CA = filepath.Join(dir, "ca.crt")
	_, log := newLog()
	client, err := NewClientTLS(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	conn, accepted, err := connect(t, l, tcp.NewDialer(strings.TrimPrefix(l.Endpoint(), "tcp "), client.Config))
	if err == nil { // in TLS 1.3 the client learns it when it reads
		_, err = conn.Read()
	}
	if !errors.Is(err, transport.ErrPermanent) {
		t.Errorf("the stranger: %v", err)
	}
	if names := accepted.Info().Names; len(names) > 0 {
		t.Errorf("it is taken for %q", names)
	}
	accepted.Close()
	conn.Close()
}

func TestAnOldTLSVersionIsNotInTheConfiguration(t *testing.T) {
	dir, _ := certificates(t)
	server, client, _ := newTLSPair(t, dir)
	for _, c := range []*tls.Config{server.Config(), client.Config()} {
		if c.MinVersion != tls.VersionTLS13 {
			t.Errorf("from version %x", c.MinVersion)
		}
	}
	if server.Config().ClientAuth != tls.RequireAndVerifyClientCert {
		t.Error("client_ca does not demand a certificate")
	}
}

func TestAnEndThatIsNearIsReportedDaily(t *testing.T) {
	dir, _ := certificates(t)
	server, _, logged := newTLSPair(t, dir)
	left := time.Until(server.Expiry())
	if left < 23*time.Hour || left > 25*time.Hour {
		t.Fatalf("the certificate ends in %v", left)
	}
	now := time.Now().Add(-40 * 24 * time.Hour)
	server.now = func() time.Time { return now }
	for _, c := range []struct{ hours, warnings, errors int }{
		{0, 0, 0}, {24 * 9, 0, 0}, {24 * 3, 1, 0}, {12, 1, 0}, {13, 2, 0}, {24 * 30, 2, 1}, {23, 2, 1}, {1, 2, 2},
	} {
		now = now.Add(time.Duration(c.hours) * time.Hour)
		server.warn()
		if w, e := logged.count("level=WARN"), logged.count("level=ERROR"); w != c.warnings || e != c.errors {
			t.Errorf("at %v before the end: %d warnings and %d errors, want %d and %d", server.Expiry().Sub(now), w, e, c.warnings, c.errors)
		}
	}
	client, err := NewClientTLS(ClientTLSConfig{CA: SystemCA}, server.log)
	if err != nil {
		t.Fatal(err)
	}
	if !client.Expiry().IsZero() {
		t.Error("a client without a certificate has an end")
	}
	client.warn()
}

func TestAFirstLoadThatFailsSaysWhatOf(t *testing.T) {
	dir, _ := certificates(t)
	other, _ := certificates(t)
	_, log := newLog()
	path := func(name string) string { return filepath.Join(dir, name) }
	for want, cfg := range map[string]ServerTLSConfig{
		"cert: ":                  {Cert: path("none"), Key: path("server.key")},
		"key: ":                   {Cert: path("server.crt"), Key: path("none")},
		"client_ca: ":             {Cert: path("server.crt"), Key: path("server.key"), ClientCA: path("server.key")},
		"does not match":          {Cert: path("server.crt"), Key: filepath.Join(other, "server.key")},
		"failed to find any PEM ": {Cert: "/dev/null", Key: path("server.key")},
	} {
		if _, err := NewServerTLS(cfg, log); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if _, err := NewClientTLS(ClientTLSConfig{CA: path("none")}, log); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a CA that is not there: %v", err)
	}
}
