package mcp

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
)

// maxGone is how many peers that have left are remembered.
const maxGone = 1024

// PeerStatus is what an operator sees of a peer.
type PeerStatus struct {
	Sender     string    // its name
	Transport  string    // that it uses: "tcp", "quic" …
	Remote     string    // where it connected from last
	Identity   string    // who it has proven to be; empty: nobody has asked
	State      mcp.State // of its session
	Reason     string    // why the session is no longer open; empty while it is, and where we ended it
	Since      time.Time // when it came, or went
	Reconnects uint64    // how often it has come again, while it was remembered
}

// peer is one session of a Server.
type peer struct {
	session *mcp.Session
	conn    transport.Conn
	remote  string
	ticket  *ticket
	alarms  alarms
	refused bool   // and that was logged
	sender  string // once it has introduced itself; guarded by peers.mu
}

// peers are the senders that a Server knows, by name.
type peers struct {
	strangers  *chatter // about connections that anybody can make
	lines      *chatter // about peers
	reconnects atomic.Uint64

	handshakes       atomic.Uint64 // of TLS and DTLS that failed
	handshakesFailed atomic.Uint64 // other connections without a HELLO

	mu    sync.Mutex
	known map[string]*known
	here  int // of them, connected

	entered func(sender string) // told of each that comes; must not call back
}

// known is a sender that is connected, or was.
type known struct {
	status PeerStatus
	peer   *peer // nil when it has left
}

func newPeers(log *slog.Logger, entered func(sender string)) *peers {
	return &peers{
		known: make(map[string]*known), entered: entered, strangers: newChatter(log, 1, 10), lines: newChatter(log, 100, 1000),
	}
}

// enter notes that a session's peer has introduced itself. A session that the
// same sender has left behind, on a connection that looks alive, ends. What may
// be a replay waits until the peer is known to be there, else anybody who has
// seen a HELLO could end sessions with it.
func (ps *peers) enter(ctx context.Context, p *peer, who mcp.Peer, id Identity, patience time.Duration) error {
	if who.Confirmed != nil && ps.elsewhere(p, who.Sender) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		select {
		case <-who.Confirmed:
		case <-ctx.Done():
			return &mcp.Error{Code: mcp.CodeHelloTimeout, Reason: "the handshake was not finished, and this sender has a session"}
		}
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.rename(p, who.Sender)
	k := ps.known[who.Sender]
	switch {
	case k == nil:
		k = new(known)
		ps.known[who.Sender] = k
	case k.peer != nil && k.peer != p:
		ps.replace(k, p)
	}
	if k.peer == nil {
		ps.here++
	}
	if k.peer != p && !k.status.Since.IsZero() {
		k.status.Reconnects++
		ps.reconnects.Add(1)
	}
	k.peer = p
	k.status = PeerStatus{
		Sender: who.Sender, Transport: p.conn.Info().Transport, Remote: p.remote, Identity: identity(who, id),
		Since: time.Now(), Reconnects: k.status.Reconnects,
	}
	args := []any{"sender", who.Sender, "remote", p.remote, "epoch", who.Epoch, "software", who.Software}
	if k.status.Identity != "" {
		args = append(args, "identity", k.status.Identity)
	}
	ps.entered(who.Sender)
	ps.lines.say(slog.LevelInfo, "peer connected", args...)
	return nil
}

// identity is who the peer has proven to be.
func identity(who mcp.Peer, id Identity) string {
	if id != nil {
		return id.String()
	}
	return strings.Join(who.Names, ", ")
}

// elsewhere says whether the sender has another session than p.
func (ps *peers) elsewhere(p *peer, sender string) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	k := ps.known[sender]
	return k != nil && k.peer != nil && k.peer != p
}

// rename notes a peer's name; one that says HELLO again may have a new one. The
// caller holds mu.
func (ps *peers) rename(p *peer, sender string) {
	before := p.sender
	p.sender = sender
	if k := ps.known[before]; before != "" && before != sender && k != nil && k.peer == p {
		delete(ps.known, before)
		ps.here--
	}
}

// replace ends the session that a sender has left behind. The caller holds mu.
func (ps *peers) replace(k *known, p *peer) {
	level := slog.LevelInfo
	if host(k.peer.remote) != host(p.remote) {
		level = slog.LevelWarn
	}
	ps.lines.say(level, "a sender has connected anew, its older session is closed; if this goes on, two devices bear one name",
		"sender", p.sender, "remote", p.remote, "before", k.peer.remote)
	k.peer.session.Close(&mcp.Error{Code: mcp.CodeReplaced, Reason: "a newer connection says that it is " + p.sender})
}

// leave notes that a session has ended.
func (ps *peers) leave(p *peer, err error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.sender == "" {
		ps.unknownLeft(p, err)
		return
	}
	ps.lines.say(slog.LevelInfo, "peer gone", "sender", p.sender, "remote", p.remote, "reason", reason(err))
	k := ps.known[p.sender]
	if k == nil || k.peer != p {
		return // replaced
	}
	k.peer = nil
	k.status.State, k.status.Since = mcp.Closed, time.Now()
	if err != nil {
		k.status.Reason = err.Error()
	}
	ps.here--
	ps.forget(p.sender)
}

// unknownLeft notes the end of a session whose peer has not introduced itself.
func (ps *peers) unknownLeft(p *peer, err error) {
	switch {
	case errors.Is(err, transport.ErrHandshake):
		ps.handshakes.Add(1)
		ps.strangers.say(slog.LevelWarn, "a connection was refused: its handshake has failed", "remote", p.remote, "reason", err)
		return
	case lostUnknown(err):
		ps.handshakesFailed.Add(1)
	}
	if !p.refused {
		ps.strangers.say(slog.LevelInfo, "a connection has ended before its peer said who it is", "remote", p.remote, "reason", reason(err))
	}
}

// reason is why a session has ended, for the log.
func reason(err error) string {
	if err == nil {
		return "we stop"
	}
	return err.Error()
}

// lostUnknown says whether a session ended without a code, of ours or of the
// peer's, that says why, and not over a frame that is counted as bad.
func lostUnknown(err error) bool {
	var e *mcp.Error
	return err != nil && !errors.As(err, &e) && !errors.Is(err, mcp.ErrPayload) &&
		!errors.Is(err, transport.ErrFrame) && !errors.Is(err, transport.ErrTooLarge)
}

// forget drops some peer that is gone, but not this one, if there are too many.
// The caller holds mu.
func (ps *peers) forget(but string) {
	if len(ps.known)-ps.here <= maxGone {
		return
	}
	for name, k := range ps.known {
		if k.peer == nil && name != but {
			delete(ps.known, name)
			return
		}
	}
}

// session is the one whose peer bears this name, in whatever state; nil: none.
func (ps *peers) session(sender string) *mcp.Session {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if k := ps.known[sender]; k != nil && k.peer != nil {
		return k.peer.session
	}
	return nil
}

func (ps *peers) list() []PeerStatus {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	list := make([]PeerStatus, 0, len(ps.known))
	for _, k := range ps.known {
		status := k.status
		if k.peer != nil {
			status.State, _ = k.peer.session.State()
		}
		list = append(list, status)
	}
	return list
}
