package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
)

// ServerConfig of a Server.
type ServerConfig struct {
	ListenConfig
	Name  string // of the [[listen]]
	Agent string // our id, said in WELCOME
	Epoch record.Epoch

	// Remotes names the devices that can't say HELLO, by their IP address: what
	// comes from there is acknowledged, and not de-duplicated.
	Remotes map[string]string
	// OwnDeviceOnly lets a peer speak only for the name that it gave in HELLO.
	// It says little as long as nobody checks that name.
	OwnDeviceOnly bool
}

// refusals is how many connections beyond MaxConnections are told so at the
// same time; the others are just closed.
const refusals = 16

// refusalTime is how long telling them may take.
const refusalTime = time.Second

// Server takes in peers that publish.
type Server struct {
	cfg     ServerConfig
	queue   Queue
	now     Now
	log     *slog.Logger
	answers *mcp.Answers
	remotes map[netip.Addr]string

	counters    mcp.Counters
	connections atomic.Int64
	accepted    atomic.Uint64
	refused     atomic.Uint64
	refusing    chan struct{}
	running     sync.WaitGroup

	peers peers
}

// NewServer makes a Server; it starts nothing.
func NewServer(cfg ServerConfig, queue Queue, now Now, log *slog.Logger) (*Server, error) {
	if err := record.CheckName(cfg.Agent); err != nil {
		return nil, fmt.Errorf("mcp: the agent's id %w", err)
	}
	if cfg.Epoch == 0 {
		return nil, errors.New("mcp: the epoch is 0")
	}
	remotes := make(map[netip.Addr]string)
	for remote, device := range cfg.Remotes {
		ip, err := netip.ParseAddr(remote)
		if err != nil {
			return nil, fmt.Errorf("mcp: device %s: remote = %q is not an IP address", device, remote)
		}
		remotes[ip.Unmap()] = device
	}
	return &Server{
		cfg: cfg, queue: queue, now: now, log: log, remotes: remotes,
		answers:  mcp.NewAnswers(),
		refusing: make(chan struct{}, refusals),
		peers:    newPeers(log),
	}, nil
}

// Framer makes what finds the frames; the listener's transport wants one for
// each connection.
func (s *Server) Framer() transport.Framer { return mcp.NewStreamFramer(s.cfg.MaxPayload) }

// Run takes in peers until ctx ends; then each is told, and it returns nil. It
// fails only if somebody else closes l. The caller closes l.
func (s *Server) Run(ctx context.Context, l transport.Listener) error {
	defer s.running.Wait()
	wait := time.Duration(0)
	for {
		conn, err := l.Accept(ctx)
		switch {
		case ctx.Err() != nil:
			if conn != nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("mcp: %s: %w", l.Endpoint(), err)
		case err != nil:
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			s.log.Warn("a connection could not be accepted", "endpoint", l.Endpoint(), "error", err, "again_in", wait)
			pause(ctx, wait)
			continue
		}
		wait = 0
		s.accepted.Add(1)
		if s.connections.Load() >= int64(s.cfg.MaxConnections) {
			s.refuse(ctx, conn)
			continue
		}
		s.connections.Add(1)
		s.running.Go(func() {
			defer s.connections.Add(-1)
			s.serve(ctx, conn)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// serve holds the conversation with one peer.
func (s *Server) serve(ctx context.Context, conn transport.Conn) {
	remote := conn.Info().Remote
	p := &peer{remote: remote}
	handler := &receiver{
		queue: s.queue, now: s.now, log: s.log, agent: s.cfg.Agent, ownOnly: s.cfg.OwnDeviceOnly,
		admit: func(who mcp.Peer) error {
			s.peers.enter(p, who)
			return nil
		},
	}
	p.session = mcp.NewSession(conn, mcp.Config{
		Role: mcp.Server, Name: s.cfg.Agent, Epoch: s.cfg.Epoch,
		Heartbeat: s.cfg.HeartbeatInterval, HelloTimeout: s.cfg.HelloTimeout,
		MaxPayload: s.cfg.MaxPayload, WindowRecords: s.cfg.Window, WindowBytes: s.cfg.WindowBytes,
		Anonymous: s.remotes[host(remote)],
		Answers:   s.answers, Counters: &s.counters,
	}, handler)
	err := p.session.Run(ctx)
	s.peers.leave(p, err)
}

// host is the IP address in "10.0.0.7:1234"; none where there is no such thing.
func host(remote string) netip.Addr {
	at, _ := netip.ParseAddrPort(remote)
	return at.Addr().Unmap()
}

// refuse tells a peer that there is no room, if that can be done without
// keeping others waiting.
func (s *Server) refuse(ctx context.Context, conn transport.Conn) {
	s.refused.Add(1)
	select {
	case s.refusing <- struct{}{}:
	default:
		_ = conn.Close()
		return
	}
	s.running.Go(func() {
		defer func() { <-s.refusing }()
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		defer func() { _ = conn.Close() }()
		full := &mcp.Error{Code: mcp.CodeBusy, Reason: fmt.Sprintf("%d connections are all there may be", s.cfg.MaxConnections)}
		frame, err := mcp.AppendError(nil, mcp.Version2, full)
		deadline := time.Now().Add(refusalTime)
		if err != nil || conn.SetWriteDeadline(deadline) != nil || conn.SetReadDeadline(deadline) != nil || conn.Write(frame) != nil {
			return
		}
		for { // let it hang up first: a reset could overtake the ERROR
			if _, err := conn.Read(); err != nil && !errors.Is(err, transport.ErrFrame) && !errors.Is(err, transport.ErrTooLarge) {
				return
			}
		}
	})
}

// Stats of a Server; all but Connections only rise.
type Stats struct {
	Connections int    // open now
	Accepted    uint64 // connections, with those refused
	Refused     uint64 // connections beyond MaxConnections
	BadFrames   uint64
	Publishes   uint64 // PUBLISH frames taken
	Records     uint64 // in them, without repeats
	Repeats     uint64 // records that were there already
	Holes       uint64 // PUBLISH frames refused because something before them is missing
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	return Stats{
		Connections: int(s.connections.Load()),
		Accepted:    s.accepted.Load(), Refused: s.refused.Load(),
		BadFrames: s.counters.BadFrames.Load(), Publishes: s.counters.Publishes.Load(),
		Records: s.counters.Records.Load(), Repeats: s.counters.Repeats.Load(), Holes: s.counters.Holes.Load(),
	}
}

// Peers tells of each peer that has introduced itself how it is, also of those
// that are gone, in no order. It may be called at any time.
func (s *Server) Peers() []PeerStatus { return s.peers.list() }
