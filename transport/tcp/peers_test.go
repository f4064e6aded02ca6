package tcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// These tests talk to programs that others wrote: OpenSSL and testssl.sh.

// echo serves a TLS listener that sends back what it gets, until the test ends.
func echo(t *testing.T, server transport.TLS) (address string) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", framers, server)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			running.Go(func() {
				unblock := context.AfterFunc(ctx, func() { conn.Close() })
				defer unblock()
				defer conn.Close()
				for {
					msg, err := conn.Read()
					if err != nil || conn.Write(msg) != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		l.Close()
	})
	return l.listener.Addr().String()
}

// program is one that runs until the test ends.
type program struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.ReadCloser
	err *bytes.Buffer // complete once cmd has been waited for
}

func start(t *testing.T, name string, args ...string) program {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	p := program{cmd: cmd, err: new(bytes.Buffer)}
	cmd.Stderr = p.err
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if p.out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.in.Close()
		p.out.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return p
}

// files puts a CA's certificates where OpenSSL finds them.
func files(t *testing.T, ca *transporttest.CA) (file func(name string) string) {
	t.Helper()
	dir := t.TempDir()
	ca.Files(dir)
	return func(name string) string { return filepath.Join(dir, name) }
}

func TestOpenSSLIsAClient(t *testing.T) {
	ca := transporttest.NewCA(t)
	file := files(t, ca)
	address := echo(t, ca.MutualServer())
	client := start(t, "openssl", "s_client", "-connect", address, "-quiet", "-verify_return_error",
		"-CAfile", file("ca.crt"), "-verify_hostname", transporttest.ServerName, "-cert", file("client.crt"), "-key", file("client.key"))
	for n := range 3 {
		msg := transporttest.Frame(fmt.Appendf(nil, "message %d", n))
		if _, err := client.in.Write(msg); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(msg))
		if _, err := io.ReadFull(client.out, got); err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("it got back %q, %v", got, err)
		}
	}
}

func TestOpenSSLIsRefused(t *testing.T) {
	ca := transporttest.NewCA(t)
	file := files(t, ca)
	foreign := files(t, transporttest.NewCA(t))
	address := echo(t, ca.MutualServer())
	for _, c := range []struct {
		name  string
		args  []string
		alert string
	}{
		{"with TLS 1.2", []string{"-tls1_2", "-cert", file("client.crt"), "-key", file("client.key")}, "protocol version"},
		{"without a certificate", nil, "certificate required"},
		{"with one of another CA", []string{"-cert", foreign("client.crt"), "-key", foreign("client.key")}, "unknown ca"},
	} {
		client := start(t, "openssl", append([]string{"s_client", "-connect", address, "-quiet", "-CAfile", file("ca.crt")}, c.args...)...)
		got, _ := io.ReadAll(client.out) // until it gives up
		_ = client.cmd.Wait()
		if len(got) > 0 {
			t.Errorf("%s: it got %q", c.name, got)
		}
		if !strings.Contains(client.err.String(), c.alert) {
			t.Errorf("%s: it says\n%s", c.name, client.err)
		}
	}
}

func TestAnOpenSSLThatDoesNotTrustUsIsUnderstood(t *testing.T) {
	ca := transporttest.NewCA(t)
	file := files(t, ca)
	foreign := files(t, transporttest.NewCA(t))
	l, err := Listen(t.Context(), "127.0.0.1:0", framers, ca.MutualServer())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, args := range map[string][]string{
		"another CA":   {"-CAfile", foreign("ca.crt")},
		"another name": {"-CAfile", file("ca.crt"), "-verify_hostname", "other.test"},
	} {
		start(t, "openssl", append([]string{
			"s_client", "-connect", l.listener.Addr().String(), "-quiet",
			"-verify_return_error", "-cert", file("client.crt"), "-key", file("client.key"),
		}, args...)...)
		conn, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Read()
		if !errors.Is(err, transport.ErrLost) || !errors.Is(err, transport.ErrHandshake) || !strings.Contains(err.Error(), "does not accept our certificate") {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
}

func TestOpenSSLIsAServer(t *testing.T) {
	ca := transporttest.NewCA(t)
	file := files(t, ca)
	server := start(t, "openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-Verify", "1", "-verify_return_error",
		"-CAfile", file("ca.crt"), "-cert", file("server.crt"), "-key", file("server.key"))
	address := await(t, server.out, `ACCEPT (\S+)`)
	conn, err := NewDialer(address, ca.Client("press-7")).Dial(t.Context(), framers())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Write([]byte("here we are\n")); err != nil {
		t.Fatal(err)
	}
	await(t, server.out, "(here we are)")
	msg := transporttest.Frame([]byte("welcome\n")) // it sends whole lines
	if _, err := server.in.Write(msg); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := conn.Read(); !bytes.Equal(got, msg) {
		t.Errorf("read %q, %v", got, err)
	}
	server.in.Close() // then it says close_notify
	if _, err := conn.Read(); !errors.Is(err, transport.ErrLost) {
		t.Errorf("when it hangs up: %v", err)
	}
}

// await reads until the first group of the expression is found.
func await(t *testing.T, r io.Reader, expression string) string {
	t.Helper()
	found := regexp.MustCompile(expression)
	var seen []byte
	for buf := make([]byte, 4096); ; {
		n, err := r.Read(buf)
		seen = append(seen, buf[:n]...)
		if m := found.FindSubmatch(seen); m != nil {
			return string(m[1])
		}
		if err != nil {
			t.Fatalf("no %s in %q: %v", expression, seen, err)
		}
	}
}

func TestTestsslFindsNoWeakness(t *testing.T) {
	address := echo(t, transporttest.NewCA(t).Server())
	report := filepath.Join(t.TempDir(), "report.json")
	// Without its tests of the certificate, which is the test's own.
	out, err := exec.CommandContext(t.Context(), "testssl", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none",
		"--protocols", "--std", "--fs", "--vulnerable", "--jsonfile", report, address).CombinedOutput()
	text, fileErr := os.ReadFile(report)
	if fileErr != nil {
		t.Fatalf("%v, %v:\n%s", err, fileErr, out)
	}
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(text, &findings); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	var tested []string
	for _, f := range findings {
		tested = append(tested, f.ID)
		if slices.Contains([]string{"LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"}, f.Severity) {
			t.Errorf("%s: %s: %s", f.Severity, f.ID, f.Finding)
		}
	}
	for _, id := range []string{"SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "cipherlist_NULL", "heartbleed", "ROBOT", "LUCKY13"} {
		if !slices.Contains(tested, id) {
			t.Errorf("%s was not tested:\n%s", id, out)
		}
	}
}
