package mcp_test

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"
	"testing"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/quic"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// journal is a log that a test reads.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

// lines are those that hold the words.
func (j *journal) lines(words string) (found []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.text.String()) {
		if strings.Contains(line, words) {
			found = append(found, line)
		}
	}
	return found
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func onTCP(t *testing.T) func(*driver.Server) (transport.Listener, error) {
	return func(s *driver.Server) (transport.Listener, error) {
		return tcp.Listen(t.Context(), "127.0.0.1:0", s.Framer, nil)
	}
}

func TestARefusedPeerIsOneLineInTheLog(t *testing.T) {
	b, log := openStore(t, t.TempDir(), store.Config{}), new(journal)
	s := startServerLogging(t, b.store, driver.ServerConfig{Authenticator: tokens{}}, log.logger(), onTCP(t))
	if err := sayWith(t, s, "press-1", "forged", record.Record{Device: "press-1", Stream: "s", Payload: []byte("x")}); !mcp.IsCode(err, mcp.CodeUnauthorized) {
		t.Fatal(err)
	}
	s.stop()
	if got := log.lines(""); len(got) != 1 || !strings.Contains(got[0], "level=WARN") {
		t.Errorf("%q", got)
	}
}

func TestAPeerThatIsGoneBecauseWeStopLeavesNoEmptyWords(t *testing.T) {
	b, log := openStore(t, t.TempDir(), store.Config{}), new(journal)
	s := startServerLogging(t, b.store, driver.ServerConfig{}, log.logger(), onTCP(t))
	connect(t, s.address).hello("press-1")
	s.stop()
	if got := log.lines("peer gone"); len(got) != 1 || !strings.Contains(got[0], `reason="we stop"`) || len(log.lines("identity")) > 0 || len(log.lines("nil")) > 0 {
		t.Errorf("%q", log.lines(""))
	}
}

func TestAFullServerNamesTheLimitAndTheAddressAndCountsWhatItDoesNotLog(t *testing.T) {
	b, log := openStore(t, t.TempDir(), store.Config{}), new(journal)
	cfg := limits()
	cfg.MaxConnectionsPerAddress = 1
	s := startServerLogging(t, b.store, driver.ServerConfig{ListenConfig: cfg}, log.logger(), onTCP(t))
	connect(t, s.address).hello("press-1")
	for range 50 {
		connect(t, s.address).conn.Close()
	}
	eventually(t, "all to be refused", func() bool { return s.Stats().Refusals.PerAddress == 50 })
	got := log.lines("limit=max_connections_per_address")
	if len(got) == 0 || len(got) > 20 || !strings.Contains(got[0], "level=WARN") || !strings.Contains(got[0], "remote=127.0.0.1:") {
		t.Fatalf("%d lines: %q", len(got), got)
	}
	eventually(t, "a line that says how many were left out", func() bool {
		connect(t, s.address).closed()
		return len(log.lines("suppressed=")) > 0
	})
}

func TestAHandshakeThatFailsIsCountedAndWarnedOf(t *testing.T) {
	nobody := func() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
	all := carriers(t)
	for name, dial := range map[string]func(address string, c transport.TLS) transport.Dialer{
		"tls": func(address string, c transport.TLS) transport.Dialer { return tcp.NewDialer(address, c) },
		"dtls": func(address string, c transport.TLS) transport.Dialer {
			return udp.NewDialer(address, udp.Config{TLS: c})
		},
		"quic": func(address string, c transport.TLS) transport.Dialer { return quic.NewDialer(address, c) },
	} {
		t.Run(name, func(t *testing.T) {
			b, log := openStore(t, t.TempDir(), store.Config{}), new(journal)
			s := startServerLogging(t, b.store, driver.ServerConfig{}, log.logger(), func(s *driver.Server) (transport.Listener, error) {
				return all[name].listen(t, s.Framer, s.Gate)
			})
			for i, c := range []transport.TLS{nobody, transporttest.NewCA(t).Client("press-7")} {
				if conn, err := dial(s.address, c).Dial(t.Context(), mcp.NewStreamFramer(0, 0)); err == nil {
					_ = conn.Write(frame(t, mcp.CommandHeartbeat, nil)) // it may be hung up on already
					_, _ = conn.Read()
					conn.Close()
				}
				eventually(t, "it to be counted", func() bool { return s.Stats().Refusals.Handshake == uint64(i+1) })
			}
			// It is counted first, and told then.
			eventually(t, "both to be told", func() bool { return len(log.lines("handshake has failed")) == 2 })
			if got := log.lines("handshake has failed"); !strings.Contains(got[0], "level=WARN") {
				t.Errorf("%q", got)
			}
		})
	}
}
