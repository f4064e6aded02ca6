package udp

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// These tests talk to programs that others wrote: OpenSSL and socat.

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

func (p program) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(p.in, text); err != nil {
		t.Fatal(err)
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
	l, _ := listenAndDial(t, Config{TLS: ca.MutualServer()}, Config{})
	defer l.Close()
	client := start(t, "openssl", "s_client", "-dtls1_2", "-connect", l.local, "-quiet", "-no_ign_eof", "-verify_return_error",
		"-CAfile", file("ca.crt"), "-verify_hostname", transporttest.ServerName, "-servername", transporttest.ServerName,
		"-cert", file("client.crt"), "-key", file("client.key"))
	client.say(t, "hello\n")
	conn := accept(t, l)
	defer conn.Close()
	expect(t, conn, "hello\n")
	if got := conn.Info().Names; !slices.Equal(got, []string{"client"}) {
		t.Errorf("its names are %q", got)
	}
	write(t, conn, "welcome\n")
	await(t, client.out, "(welcome)")
	client.in.Close() // then it says close_notify
	if _, err := conn.Read(); !errors.Is(err, transport.ErrLost) {
		t.Errorf("when it hangs up: %v", err)
	}
}

func TestOpenSSLIsRefused(t *testing.T) {
	ca := transporttest.NewCA(t)
	file := files(t, ca)
	foreign := files(t, transporttest.NewCA(t))
	for _, c := range []struct {
		name string
		args []string
	}{
		{"with DTLS 1.0", []string{"-dtls1", "-cipher", "ALL:@SECLEVEL=0"}},
		{"without forward secrecy", []string{"-dtls1_2", "-cipher", "AES128-GCM-SHA256"}},
		{"with a cipher that is no AEAD", []string{"-dtls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"}},
		{"without a certificate", []string{"-dtls1_2"}},
		{"with one of another CA", []string{"-dtls1_2", "-cert", foreign("client.crt"), "-key", foreign("client.key")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, _ := listenAndDial(t, Config{TLS: ca.MutualServer()}, Config{})
			defer l.Close()
			client := start(t, "openssl", append([]string{"s_client", "-connect", l.local, "-quiet", "-CAfile", file("ca.crt")}, c.args...)...)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				conn, err := l.Accept(t.Context())
				if err != nil {
					return
				}
				defer conn.Close()
				_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				if msg, err := conn.Read(); !errors.Is(err, transport.ErrLost) {
					t.Errorf("Read: %q, %v", msg, err)
				}
			}()
			got, _ := io.ReadAll(client.out) // until it gives up
			_ = client.cmd.Wait()
			l.Close()
			<-ended
			if len(got) > 0 || !strings.Contains(client.err.String(), "alert") {
				t.Errorf("it got %q, and says\n%s", got, client.err)
			}
		})
	}
}

func TestOpenSSLIsAServer(t *testing.T) {
	ca := transporttest.NewCA(t)
	file := files(t, ca)
	server := start(t, "openssl", "s_server", "-dtls1_2", "-accept", "127.0.0.1:0", "-naccept", "1", "-listen",
		"-Verify", "1", "-verify_return_error",
		"-CAfile", file("ca.crt"), "-cert", file("server.crt"), "-key", file("server.key"))
	address := await(t, server.out, `ACCEPT (\S+)`)
	conn, err := NewDialer(address, Config{TLS: ca.Client("press-7")}).Dial(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.Info().Names; !slices.Contains(got, transporttest.ServerName) {
		t.Errorf("its names are %q", got)
	}
	write(t, conn, "here we are\n")
	await(t, server.out, "(here we are)")
	server.say(t, "welcome\n") // it sends whole lines
	expect(t, conn, "welcome\n")
	server.in.Close() // then it ends without a goodbye
	_ = server.cmd.Wait()
	write(t, conn, "still there?\n")
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(); !errors.Is(err, transport.ErrLost) {
		t.Errorf("when it has gone: %v", err)
	}
}

func TestSocatIsAClient(t *testing.T) {
	l, _ := listenAndDial(t, Config{}, Config{})
	defer l.Close()
	client := start(t, "socat", "-", "UDP4:"+l.local)
	client.say(t, "hello")
	conn := accept(t, l)
	defer conn.Close()
	expect(t, conn, "hello")
	write(t, conn, "welcome")
	await(t, client.out, "(welcome)")
}

func TestSocatIsAServer(t *testing.T) {
	address := deserted(t)
	_, port, _ := strings.Cut(address, ":")
	server := start(t, "socat", "-", "UDP4-LISTEN:"+port+",bind=127.0.0.1")
	conn := askUntilHeard(t, address, server.out)
	defer conn.Close()
	server.say(t, "welcome")
	expect(t, conn, "welcome")
}

// askUntilHeard dials again as long as nothing listens there yet.
func askUntilHeard(t *testing.T, address string, heard io.Reader) transport.Conn {
	t.Helper()
	answer := make(chan struct{})
	go func() {
		_, _ = heard.Read(make([]byte, 1))
		close(answer)
	}()
	for {
		conn := dial(t, NewDialer(address, Config{}))
		_ = conn.Write([]byte("x"))
		select {
		case <-answer:
			return conn
		case <-time.After(50 * time.Millisecond):
			conn.Close()
		}
	}
}
