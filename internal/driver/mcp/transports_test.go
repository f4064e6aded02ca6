package mcp_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

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

// carrier is a transport, as both sides of it are configured. gate is for UDP.
type carrier struct {
	listen func(t *testing.T, framers func() transport.Framer, gate udp.Gate) (transport.Listener, error)
	dial   func(address string) transport.Dialer
}

func carriers(t *testing.T) map[string]carrier {
	ca := transporttest.NewCA(t)
	const local = "127.0.0.1:0"
	type framers = func() transport.Framer
	return map[string]carrier{
		"tcp": {
			func(t *testing.T, f framers, _ udp.Gate) (transport.Listener, error) {
				return tcp.Listen(t.Context(), local, f, nil)
			},
			func(address string) transport.Dialer { return tcp.NewDialer(address, nil) },
		},
		"tls": {
			func(t *testing.T, f framers, _ udp.Gate) (transport.Listener, error) {
				return tcp.Listen(t.Context(), local, f, ca.MutualServer())
			},
			func(address string) transport.Dialer { return tcp.NewDialer(address, ca.Client("press-7")) },
		},
		"udp": {
			func(t *testing.T, _ framers, gate udp.Gate) (transport.Listener, error) {
				return udp.Listen(t.Context(), local, udp.Config{Gate: gate})
			},
			func(address string) transport.Dialer { return udp.NewDialer(address, udp.Config{}) },
		},
		"dtls": {
			func(t *testing.T, _ framers, _ udp.Gate) (transport.Listener, error) {
				return udp.Listen(t.Context(), local, udp.Config{TLS: ca.MutualServer()})
			},
			func(address string) transport.Dialer {
				return udp.NewDialer(address, udp.Config{TLS: ca.Client("press-7")})
			},
		},
		"quic": {
			func(t *testing.T, f framers, _ udp.Gate) (transport.Listener, error) {
				return quic.Listen(t.Context(), local, f, ca.MutualServer())
			},
			func(address string) transport.Dialer { return quic.NewDialer(address, ca.Client("press-7")) },
		},
	}
}

func TestADevicePublishesOverEveryTransport(t *testing.T) {
	for name, c := range carriers(t) {
		t.Run(name, func(t *testing.T) {
			b := openStore(t, t.TempDir(), store.Config{})
			s := startServerOn(t, b.store, driver.ServerConfig{}, func(s *driver.Server) (transport.Listener, error) {
				return c.listen(t, s.Framer, s.Gate)
			})
			stop := background(t, newDevice(t, "press-7", c.dial(s.address), 2000).Run)
			expectNumbered(t, b.read(t, 2000))
			stop()
			secure := name != "tcp" && name != "udp"
			p := s.Peers()
			if len(p) != 1 || p[0].Sender != "press-7" || secure != (p[0].Identity == "press-7") || p[0].Transport == "" || p[0].Remote == "" {
				t.Errorf("%+v", p)
			}
			if got := s.Stats(); got.Records != 2000 || got.Refused != 0 || (name == "udp") != (got.Challenges > 0) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestAPeerTooManyIsToldSoOnEveryTransport(t *testing.T) {
	for name, c := range carriers(t) {
		t.Run(name, func(t *testing.T) {
			b := openStore(t, t.TempDir(), store.Config{})
			cfg := limits()
			cfg.MaxConnections = 1
			s := startServerOn(t, b.store, driver.ServerConfig{ListenConfig: cfg}, func(s *driver.Server) (transport.Listener, error) {
				return c.listen(t, s.Framer, s.Gate)
			})
			first, ended := visit(t, c.dial(s.address), mcp.Config{Name: "press-1"})
			<-first.Opened()
			_, refused := visit(t, c.dial(s.address), mcp.Config{Name: "press-2"})
			if err := <-refused; !mcp.IsCode(err, mcp.CodeBusy) {
				t.Errorf("it ends with %v", err)
			}
			if got := s.Stats(); got.Refusals.Connections != 1 || got.Connections != 1 {
				t.Errorf("%+v", got)
			}
			first.Close(&mcp.Error{Code: mcp.CodeGoingAway})
			<-ended
		})
	}
}

func TestASilentPeerIsDroppedOnEveryTransport(t *testing.T) {
	for name, c := range carriers(t) {
		if name == "udp" {
			continue // there only a HELLO makes a connection
		}
		t.Run(name, func(t *testing.T) {
			b := openStore(t, t.TempDir(), store.Config{})
			s := startServerOn(t, b.store, driver.ServerConfig{ListenConfig: hostileLimits()}, func(s *driver.Server) (transport.Listener, error) {
				return c.listen(t, s.Framer, s.Gate)
			})
			conn, err := c.dial(s.address).Dial(t.Context(), mcp.NewStreamFramer(0, 0))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			eventually(t, "the time-out", func() bool {
				got := s.Stats()
				return got.Refusals.HelloTimeouts == 1 && got.Connections == 0
			})
		})
	}
}

func TestASilentHandshakeIsDropped(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServerOn(t, b.store, driver.ServerConfig{ListenConfig: hostileLimits()}, func(s *driver.Server) (transport.Listener, error) {
		return carriers(t)["tls"].listen(t, s.Framer, nil)
	})
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "the handshake", func() bool { return s.Stats().Handshakes == 1 })
	eventually(t, "the time-out", func() bool { return s.Stats().Connections == 0 })
	if n := s.Stats().Refusals.HelloTimeouts; n != 1 {
		t.Errorf("%d are counted", n)
	}
}

// answerer is a device that listens: it publishes what is in its outbox, and
// answers polls.
func answerer(t *testing.T, l transport.Listener, o *mcp.Outbox) {
	t.Helper()
	answers := mcp.NewAnswers()
	background(t, func(ctx context.Context) error {
		var running sync.WaitGroup
		defer running.Wait()
		for {
			conn, err := l.Accept(ctx)
			switch {
			case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
				return nil
			case err != nil:
				return err
			}
			session := mcp.NewSession(conn, mcp.Config{
				Role: mcp.Server, Name: "press-7", Epoch: 1, Outboxes: []*mcp.Outbox{o}, Answers: answers,
			}, answering{answer: func(_ context.Context, q mcp.Request) mcp.Response {
				return mcp.Response{Payload: []byte("21.5 for " + q.Device), ContentType: "text/plain"}
			}})
			running.Go(func() { _ = session.Run(ctx) })
		}
	})
}

func TestALinkPollsADeviceOverEveryTransport(t *testing.T) {
	for name, c := range carriers(t) {
		t.Run(name, func(t *testing.T) {
			framers := func() transport.Framer { return mcp.NewStreamFramer(0, 0) }
			listener, err := c.listen(t, framers, mcp.NewGate().Check)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { listener.Close() })
			o, err := mcp.NewOutbox(mcp.OutboxConfig{})
			if err != nil {
				t.Fatal(err)
			}
			answerer(t, listener, o)
			_, address, _ := strings.Cut(listener.Endpoint(), " ")
			l, b, sink := newLink(t, c.dial(address), driver.LinkConfig{})
			open(t, l)
			if err := o.Publish(t.Context(), record.Record{Device: "press-7", Stream: "s", Payload: []byte("pushed")}); err != nil {
				t.Fatal(err)
			}
			if got := b.read(t, 1); string(got[0].Payload) != "pushed" {
				t.Errorf("%+v", got)
			}
			step(t, l, "temp", driver.PollConfig{Method: "read"})
			if r := <-sink.records; string(r.Payload) != "21.5 for press-7" {
				t.Errorf("%+v", r)
			}
			s := l.Stats()
			if s.State != mcp.Open || s.Sender != "press-7" || s.Reconnects != 0 || s.Transport == "" || s.Remote != address || s.Since.IsZero() {
				t.Errorf("%+v", s)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			open(t, l)
			if s := l.Stats(); s.Reconnects != 1 || time.Since(s.Since) > patience {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestALinkShowsItsTokenAndFailsForGoodWithoutOne(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{Authenticator: tokens{"good": publisher("gw-01")}})
	token, broken := "good", errors.New("token_file: no such file")
	l, _, _ := newLink(t, tcp.NewDialer(s.address, nil), driver.LinkConfig{Token: func() (string, error) {
		if token == "" {
			return "", broken
		}
		return token, nil
	}})
	open(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	token = "forged"
	if err := l.Open(t.Context()); !mcp.IsCode(err, mcp.CodeUnauthorized) {
		t.Errorf("a forged token: %v", err)
	}
	token = ""
	if err := l.Open(t.Context()); !errors.Is(err, broken) || !errors.Is(err, transport.ErrPermanent) {
		t.Errorf("no token: %v", err)
	}
}
