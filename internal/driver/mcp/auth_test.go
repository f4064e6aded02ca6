package mcp_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// bubble is synctest.Test on one processor. On several, Go 1.26's race detector
// crashes now and then when timers of a bubble fire on two of them at once
// (golang/go#78156).
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}

// identity is what a test's token says.
type identity struct {
	subject string
	devices []string
	roles   []string
	expires time.Time
}

func (i identity) String() string                 { return i.subject }
func (i identity) Expires() time.Time             { return i.expires }
func (i identity) MaySpeakFor(device string) bool { return slices.Contains(i.devices, device) }
func (i identity) Has(role string) bool           { return slices.Contains(i.roles, role) }

// tokens are the good ones, by what stands in HELLO.
type tokens map[string]identity

func (known tokens) Authenticate(sender, token string, _ []string) (driver.Identity, error) {
	id, ok := known[token]
	switch {
	case token == "stale":
		return nil, &mcp.Error{Code: mcp.CodeTokenExpired, Reason: "the token has expired"}
	case !ok:
		return nil, errors.New("nobody has signed this")
	case id.subject != sender:
		return nil, &mcp.Error{Code: mcp.CodeNotAllowed, Reason: "the token is another's"}
	}
	return id, nil
}

func publisher(subject string, devices ...string) identity {
	return identity{subject: subject, devices: devices, roles: []string{driver.RolePublish}}
}

// sayWith is say with a token.
func sayWith(t *testing.T, s *server, sender, token string, records ...record.Record) error {
	t.Helper()
	return converse(t, s, mcp.Config{Name: sender, Token: token}, records...)
}

func TestAPeerMustProveWhoItIs(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{Authenticator: tokens{
		"good":   publisher("press-1", "press-1", "press-2", "gw-77"),
		"reader": {subject: "press-1", devices: []string{"press-1"}},
	}})
	own := record.Record{Device: "press-1", Stream: "s", Payload: []byte("x")}
	for name, c := range map[string]struct {
		sender, token string
		record        record.Record
		code          mcp.Code
	}{
		"no token":                    {"press-1", "", own, mcp.CodeUnauthorized},
		"a token of nobody's":         {"press-1", "forged", own, mcp.CodeUnauthorized},
		"a token that has expired":    {"press-1", "stale", own, mcp.CodeTokenExpired},
		"another's channel":           {"press-2", "good", own, mcp.CodeNotAllowed},
		"a token without the role":    {"press-1", "reader", own, mcp.CodeNotAllowed},
		"another's device":            {"press-1", "good", record.Record{Device: "press-3", Stream: "s", Payload: []byte("x")}, mcp.CodeNotAllowed},
		"another agent's device":      {"press-1", "good", record.Record{Agent: "gw-78", Epoch: 1, Seq: 1, Device: "press-1", Stream: "s", Payload: []byte("x")}, mcp.CodeNotAllowed},
		"its own device":              {"press-1", "good", own, 0},
		"a device behind it":          {"press-1", "good", record.Record{Device: "press-2", Stream: "s", Payload: []byte("x")}, 0},
		"a device of the agent below": {"press-1", "good", record.Record{Agent: "gw-77", Epoch: 1, Seq: 1, Device: "boiler", Stream: "s", Payload: []byte("x")}, 0},
	} {
		err := sayWith(t, s, c.sender, c.token, c.record)
		if c.code == 0 && err != nil || c.code != 0 && !mcp.IsCode(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
	eventually(t, "all to be counted", func() bool {
		r := s.Stats().Refusals
		return r.Unauthorized == 2 && r.TokenExpired == 1 && r.NotAllowed == 4
	})
	if p := s.Peers(); len(p) != 1 || p[0].Identity != "press-1" || p[0].Transport != "tcp" || p[0].Reconnects != 5 {
		t.Errorf("%+v", p)
	}
	if len(b.read(t, 3)) != 3 {
		t.Error("the three that may are not in the queue")
	}
}

func TestWhoHasProvenNothingCannotMoveTheNumbersOfWhoHas(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	closed := startServer(t, b.store, driver.ServerConfig{Name: "closed", Authenticator: tokens{"good": publisher("press-1", "press-1")}})
	open := startServer(t, b.store, driver.ServerConfig{Name: "open"})
	connected := func(s *server, token string) func(n int) {
		p, err := mcp.NewPublisher(mcp.PublisherConfig{
			Session: mcp.Config{Name: "press-1", Epoch: 77, Token: token}, Dialer: tcp.NewDialer(s.address, nil),
		})
		if err != nil {
			t.Fatal(err)
		}
		background(t, p.Run)
		return func(n int) {
			for range n {
				if err := p.Publish(t.Context(), record.Record{Device: "press-1", Stream: "s", Payload: []byte("x")}); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	proven, stranger := connected(closed, "good"), connected(open, "")
	proven(1)
	stranger(50)
	proven(3)
	if n := len(b.read(t, 54)); n != 54 {
		t.Errorf("%d of 54 acknowledged records are in the queue", n)
	}
}

func TestADeviceKnownByItsAddressSpeaksOnlyForItselfWhereOthersMustProveIt(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{
		Authenticator: tokens{}, Remotes: map[string]string{"127.0.0.1": "press-7"},
	})
	foreign := record.Record{Device: "press-8", Stream: "s", Payload: []byte("x")}
	raw := connect(t, s.address)
	raw.publish(mcp.AppendPublish(nil, "main", 0, nil, mcp.AppendRecord(nil, foreign.Append(nil))))
	raw.wantError(mcp.CodeNotAllowed)
}

// memoryServer serves an Exchange; each Conn goes through change.
func memoryServer(t *testing.T, cfg driver.ServerConfig, change func(transport.Conn) transport.Conn) (*driver.Server, *transporttest.Exchange) {
	t.Helper()
	cfg.ListenConfig, cfg.Agent, cfg.Epoch = limits(), "gw-01", 9
	s, err := driver.NewServer(cfg, nil, now, discard())
	if err != nil {
		t.Fatal(err)
	}
	x := transporttest.NewExchange("plant", s.Framer)
	background(t, func(ctx context.Context) error { return s.Run(ctx, changing{x, change}) })
	return s, x
}

type changing struct {
	*transporttest.Exchange
	change func(transport.Conn) transport.Conn
}

func (l changing) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.Exchange.Accept(ctx)
	if err == nil && l.change != nil {
		c = l.change(c)
	}
	return c, err
}

// visit opens a session; its end goes to ended.
func visit(t *testing.T, d transport.Dialer, cfg mcp.Config) (s *mcp.Session, ended chan error) {
	t.Helper()
	conn, err := d.Dial(t.Context(), mcp.NewStreamFramer(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Epoch, ended = 1, make(chan error, 1)
	s = mcp.NewSession(conn, cfg, mcp.NoHandler{})
	go func() { ended <- s.Run(t.Context()) }()
	return s, ended
}

// listen says HELLO, keeps the session alive, and passes on what else comes.
func listen(t *testing.T, d transport.Dialer, hello mcp.Hello, heard func(mcp.Frame)) {
	t.Helper()
	conn, err := d.Dial(t.Context(), mcp.NewStreamFramer(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Write(frame(t, mcp.CommandHello, hello.Append(nil)))
	for err == nil {
		var msg []byte
		if msg, err = conn.Read(); err != nil {
			break
		}
		f, _ := mcp.ParseFrame(msg)
		if f.Command == mcp.CommandHeartbeat {
			err = conn.Write(frame(t, mcp.CommandHeartbeatAck, nil))
			continue
		}
		heard(f)
	}
	if !errors.Is(err, transport.ErrLost) {
		t.Error(err)
	}
}

func TestATokenThatExpiresEndsTheSessionAfterAWarning(t *testing.T) {
	for left, c := range map[time.Duration]struct {
		warned  time.Duration
		seconds string
	}{
		10 * time.Minute: {9 * time.Minute, "60"},
		20 * time.Second: {0, "20"},
	} {
		bubble(t, func(t *testing.T) {
			start := time.Now()
			id := publisher("press-1", "press-1")
			id.expires = start.Add(left)
			s, x := memoryServer(t, driver.ServerConfig{Authenticator: tokens{"good": id}}, nil)
			var heard []mcp.Command
			listen(t, x, mcp.Hello{Sender: "press-1", Epoch: 1, Token: "good"}, func(f mcp.Frame) {
				heard = append(heard, f.Command)
				switch f.Command {
				case mcp.CommandRequest:
					var r mcp.Request
					if err := r.Unmarshal(f.Payload); err != nil || r.Method != mcp.MethodTokenExpires || string(r.Payload) != c.seconds || time.Since(start) != c.warned {
						t.Errorf("after %v: %+v, %v", time.Since(start), r, err)
					}
				case mcp.CommandClose:
					if mcp.Code(f.Payload[1]) != mcp.CodeTokenExpired || time.Since(start) != left {
						t.Errorf("after %v it ends with %v", time.Since(start), f.Payload)
					}
				}
			})
			if want := []mcp.Command{mcp.CommandWelcome, mcp.CommandRequest, mcp.CommandClose}; !slices.Equal(heard, want) {
				t.Errorf("the peer hears %v", heard)
			}
			synctest.Wait()
			if n := s.Stats().Refusals.TokenExpired; n != 1 {
				t.Errorf("%d are counted", n)
			}
		})
	}
}

func TestASessionThatEndsBeforeItsTokenLeavesNothingBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		id := publisher("press-1", "press-1")
		id.expires = time.Now().Add(time.Hour)
		_, x := memoryServer(t, driver.ServerConfig{Authenticator: tokens{"good": id}}, nil)
		session, ended := visit(t, x, mcp.Config{Name: "press-1", Token: "good"})
		<-session.Opened()
		session.Close(&mcp.Error{Code: mcp.CodeGoingAway})
		<-ended
	})
}

// early is a Conn whose peer is not yet known to be there.
type early struct {
	transport.Conn
	confirmed chan struct{}
}

func (e early) Info() transport.Info {
	info := e.Conn.Info()
	info.Confirmed = e.confirmed
	return info
}

func TestAReplayedHelloEndsNobodysSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var confirmed chan struct{}
		s, x := memoryServer(t, driver.ServerConfig{}, func(c transport.Conn) transport.Conn { return early{c, confirmed} })
		first, firstEnded := visit(t, x, mcp.Config{Name: "press-1"})
		<-first.Opened()

		confirmed = make(chan struct{})
		_, replayed := visit(t, x, mcp.Config{Name: "press-1"})
		if err := <-replayed; !mcp.IsCode(err, mcp.CodeHelloTimeout) {
			t.Errorf("the replay ends with %v", err)
		}
		if state, _ := first.State(); state != mcp.Open {
			t.Errorf("the first session is %v", state)
		}

		again, _ := visit(t, x, mcp.Config{Name: "press-1"})
		synctest.Wait()
		if state, _ := again.State(); state != mcp.Connecting {
			t.Errorf("before the handshake the newer session is %v", state)
		}
		close(confirmed)
		<-again.Opened()
		if err := <-firstEnded; !mcp.IsCode(err, mcp.CodeReplaced) {
			t.Errorf("the first session ends with %v", err)
		}
		synctest.Wait()
		if got := s.Stats(); got.Replaced != 1 || got.Reconnects != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestCertificatesNamesReachTheAuthenticator(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	names := make(chan []string, 1)
	ca := transporttest.NewCA(t)
	s := startServerOn(t, b.store, driver.ServerConfig{Authenticator: seen(names)}, func(s *driver.Server) (transport.Listener, error) {
		return tcp.Listen(t.Context(), "127.0.0.1:0", s.Framer, ca.MutualServer())
	})
	session, _ := visit(t, tcp.NewDialer(s.address, ca.Client("press-7")), mcp.Config{Name: "press-7"})
	<-session.Opened()
	if got := <-names; len(got) == 0 || got[0] != "press-7" {
		t.Errorf("got %q", got)
	}
}

type seen chan []string

func (s seen) Authenticate(sender, _ string, names []string) (driver.Identity, error) {
	s <- names
	return publisher(sender), nil
}
