package mcp

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
)

// Authenticator decides who a peer is. It may be used concurrently.
type Authenticator interface {
	// Authenticate looks at what a peer shows when it says that it is sender: the
	// token of its HELLO, empty if it has none, and the names in the certificate
	// that it has proven to hold. It succeeds only if these vouch for sender, so
	// that nobody can use another's channels.
	//
	// An *mcp.Error goes to the peer as it is (CodeUnauthorized,
	// CodeTokenExpired, CodeNotAllowed). Any other error is logged, and the peer
	// learns CodeUnauthorized without a reason.
	Authenticate(sender, token string, certNames []string) (Identity, error)
}

// Identity is a peer whose name was proven.
type Identity interface {
	// String is what the proof says, for logs and status: a token's subject, a
	// certificate's name.
	String() string
	// Expires is when the session must end; the zero time means never.
	Expires() time.Time
	// MaySpeakFor says whether the peer may publish for the device, or answer
	// for it. An agent below speaks under its own name, and not under those of
	// its devices.
	MaySpeakFor(device string) bool
	// Has says whether the peer was given the role, such as RolePublish.
	Has(role string) bool
}

// RolePublish is what a peer needs to publish.
const RolePublish = "publish"

// expiryWarning is how long before its end a peer is told that its token will
// expire.
const expiryWarning = time.Minute

// authenticate checks a peer's proof, where one is asked for. A device that the
// configuration knows by its address can't give one.
func (s *Server) authenticate(p *peer, who mcp.Peer) (Identity, error) {
	if s.cfg.Authenticator == nil || who.Anonymous {
		return nil, nil
	}
	id, err := s.cfg.Authenticator.Authenticate(who.Sender, who.Token, who.Names)
	if err == nil {
		return id, nil
	}
	var told *mcp.Error
	if !errors.As(err, &told) {
		told = &mcp.Error{Code: mcp.CodeUnauthorized}
	}
	p.refused = true
	s.peers.strangers.say(slog.LevelWarn, "a peer was refused: it has not proven who it is", "sender", who.Sender, "remote", p.remote, "error", err)
	return nil, told
}

// expire ends p's session when its proof does, and warns before.
func (s *Server) expire(p *peer, id Identity) error {
	p.alarms.stop()
	if id == nil || id.Expires().IsZero() {
		return nil
	}
	now := s.now().Time
	left := id.Expires().Sub(now)
	expired := &mcp.Error{Code: mcp.CodeTokenExpired, Reason: "connect again with a fresh token"}
	if left <= 0 {
		return expired
	}
	p.alarms.after(max(left-expiryWarning, 0), func() { s.warn(p, id, min(left, expiryWarning)) })
	p.alarms.after(left, func() { p.session.Close(expired) })
	return nil
}

// warn tells the peer that its session will end. It may be asked before the
// session is open, and whether the peer understands it is all the same.
func (s *Server) warn(p *peer, id Identity, left time.Duration) {
	select {
	case <-p.session.Opened():
	case <-p.session.Done():
	}
	s.log.Info("the token of a peer is about to expire", "sender", p.session.Peer().Sender, "identity", id, "left", left.Round(time.Second))
	_, _ = p.session.Call(context.Background(), mcp.Request{
		Method: mcp.MethodTokenExpires, ContentType: "text/plain", Payload: strconv.AppendInt(nil, int64(left/time.Second), 10),
	})
}

// alarms are the timers of one peer. Its methods are called one after the other.
type alarms struct {
	timers  []*time.Timer
	running sync.WaitGroup
}

func (a *alarms) after(d time.Duration, do func()) {
	a.running.Add(1)
	a.timers = append(a.timers, time.AfterFunc(d, func() {
		defer a.running.Done()
		do()
	}))
}

// stop keeps those from starting that have not yet.
func (a *alarms) stop() {
	for _, timer := range a.timers {
		if timer.Stop() {
			a.running.Done()
		}
	}
	a.timers = nil
}

// end also waits for those that have. The session must be over.
func (a *alarms) end() {
	a.stop()
	a.running.Wait()
}
