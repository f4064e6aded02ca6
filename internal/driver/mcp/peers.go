package mcp

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
)

// maxGone is how many peers that have left are remembered.
const maxGone = 1024

// PeerStatus is what an operator sees of a peer.
type PeerStatus struct {
	Sender string    // its name
	Remote string    // where it connected from last
	State  mcp.State // of its session
	Reason string    // why the session is no longer open; empty while it is, and where we ended it
	Since  time.Time // when it came, or went
}

// peer is one session of a Server.
type peer struct {
	session *mcp.Session
	remote  string
	sender  string // once it has introduced itself
}

// peers are the sessions of a Server by the sender's name.
type peers struct {
	log *slog.Logger

	mu     sync.Mutex
	here   map[string]*peer
	status map[string]PeerStatus
}

func newPeers(log *slog.Logger) peers {
	return peers{log: log, here: make(map[string]*peer), status: make(map[string]PeerStatus)}
}

// enter notes that a session's peer has introduced itself. A session that the
// same sender has left behind, on a connection that looks alive, ends.
func (ps *peers) enter(p *peer, who mcp.Peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if before := ps.here[who.Sender]; before != nil && before != p {
		level := slog.LevelInfo
		if host(before.remote) != host(p.remote) {
			level = slog.LevelWarn
		}
		ps.log.Log(context.Background(), level, "a sender has connected anew, its older session is closed; if this goes on, two devices bear one name",
			"sender", who.Sender, "remote", p.remote, "before", before.remote)
		before.session.Close(&mcp.Error{Code: mcp.CodeReplaced, Reason: "a newer connection says that it is " + who.Sender})
	}
	if p.sender != "" && p.sender != who.Sender && ps.here[p.sender] == p {
		delete(ps.here, p.sender)
	}
	p.sender = who.Sender
	ps.here[p.sender] = p
	ps.remember(PeerStatus{Sender: p.sender, Remote: p.remote, Since: time.Now()})
	ps.log.Info("peer connected", "sender", p.sender, "remote", p.remote, "epoch", who.Epoch, "software", who.Software)
}

// leave notes that a session has ended.
func (ps *peers) leave(p *peer, err error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.sender == "" {
		ps.log.Info("a connection has ended before its peer said who it is", "remote", p.remote, "reason", err)
		return
	}
	ps.log.Info("peer gone", "sender", p.sender, "remote", p.remote, "reason", err)
	if ps.here[p.sender] != p {
		return // replaced
	}
	delete(ps.here, p.sender)
	gone := PeerStatus{Sender: p.sender, Remote: p.remote, State: mcp.Closed, Since: time.Now()}
	if err != nil {
		gone.Reason = err.Error()
	}
	ps.remember(gone)
}

// remember keeps the status, at the price of some peer's that is gone if there
// are too many. The caller holds mu.
func (ps *peers) remember(s PeerStatus) {
	ps.status[s.Sender] = s
	if len(ps.status)-len(ps.here) <= maxGone {
		return
	}
	for name := range ps.status {
		if ps.here[name] == nil && name != s.Sender {
			delete(ps.status, name)
			return
		}
	}
}

func (ps *peers) list() []PeerStatus {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	list := make([]PeerStatus, 0, len(ps.status))
	for name, status := range ps.status {
		if p := ps.here[name]; p != nil {
			status.State, _ = p.session.State()
		}
		list = append(list, status)
	}
	return list
}
