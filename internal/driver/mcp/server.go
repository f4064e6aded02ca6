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

	// Authenticator proves who a peer is, and then that decides for which devices
	// it may speak. nil: a peer is who it says it is.
	Authenticator Authenticator

	// Remotes names the devices that can't say HELLO, by their IP address: what
	// comes from there is acknowledged, and not de-duplicated. Such a device may
	// speak only for itself where there is an Authenticator.
	Remotes map[string]string
	// OwnDeviceOnly lets a peer speak only for the name that it gave in HELLO.
	// It says little as long as nobody checks that name.
	OwnDeviceOnly bool

	// Level chooses a queue for each peer; nil: all go to the server's, without delay.
	Level Level
}

// Server takes in peers that publish.
type Server struct {
	cfg     ServerConfig
	queue   Queue
	now     Now
	log     *slog.Logger
	answers *mcp.Answers
	remotes map[netip.Addr]string

	limits  *limits
	doorman *doorman
	rates   *rates
	peers   *peers
	desk    *desk    // of jobs toward peers
	crowd   *chatter // about connections beyond a limit
	gate    *mcp.Gate
	running sync.WaitGroup

	scratches  scratches
	counters   mcp.Counters
	accepted   atomic.Uint64
	rateSlowed atomic.Uint64
	ended      endings
}

// NewServer makes a Server; it starts nothing.
func NewServer(cfg ServerConfig, queue Queue, now Now, log *slog.Logger) (*Server, error) {
	if err := record.CheckName(cfg.Agent); err != nil {
		return nil, fmt.Errorf("mcp: the agent's id %w", err)
	}
	if cfg.Epoch == 0 {
		return nil, errors.New("mcp: the epoch is 0")
	}
	if min(cfg.MaxConnections, cfg.MaxConnectionsPerAddress, cfg.MaxHandshakes) < 1 {
		return nil, errors.New("mcp: a limit of connections or handshakes is 0: nobody could connect")
	}
	remotes := make(map[netip.Addr]string)
	for remote, device := range cfg.Remotes {
		ip, err := netip.ParseAddr(remote)
		if err != nil {
			return nil, fmt.Errorf("mcp: device %s: remote = %q is not an IP address", device, remote)
		}
		remotes[ip.Unmap()] = device
	}
	desk := newDesk()
	s := &Server{
		cfg: cfg, queue: queue, now: now, log: log, remotes: remotes,
		answers: mcp.NewAnswers(), doorman: newDoorman(), rates: newRates(cfg.Rate, cfg.RateBurst),
		desk: desk, peers: newPeers(log, desk.entered), crowd: newChatter(log, 1, 10), gate: mcp.NewGate(),
	}
	s.limits = newLimits(&s.cfg.ListenConfig)
	return s, nil
}

// Framer makes what finds the frames; the listener's transport wants one for
// each connection.
func (s *Server) Framer() transport.Framer {
	f := mcp.NewStreamFramer(s.cfg.MaxPayload, s.cfg.FrameTimeout)
	if len(s.remotes) == 0 { // else the first frame may be a PUBLISH
		f.ExpectHello()
	}
	return f
}

// Gate decides which addresses may open a session over datagrams; a listener on
// UDP without DTLS asks it. See mcp.Gate.
func (s *Server) Gate(remote netip.AddrPort, datagram []byte) (reply []byte, admit bool) {
	return s.gate.Check(remote, datagram)
}

// Run takes in peers until ctx ends; then each is told, the jobs of all Lines end,
// and it returns nil. It fails only if somebody else closes l. The caller closes
// l. It may be called for several listeners; the limits hold for all of them
// together, and jobs end with the last.
func (s *Server) Run(ctx context.Context, l transport.Listener) error {
	defer s.doorman.running.Wait()
	s.desk.open()
	defer s.desk.close() // after the sessions, so that an answer on its way is still heard
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
		remote := conn.Info().Remote
		ticket, refusal := s.limits.admit(remote)
		if refusal != nil {
			s.crowd.say(slog.LevelWarn, "a connection was refused: raise the limit if it is one of yours",
				"remote", remote, "limit", refusal.key, "reason", refusal.reason.Reason)
			s.doorman.refuse(ctx, conn, refusal.reason)
			continue
		}
		s.running.Go(func() { s.serve(ctx, &peer{conn: conn, remote: remote, ticket: ticket}) })
	}
}

// pause waits, and says whether it could wait to the end.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve holds the conversation with one peer. There may be ten thousand, so it
// keeps little on its stack.
func (s *Server) serve(ctx context.Context, p *peer) {
	defer p.ticket.leave()
	r := s.receiver(p)
	p.session = s.newSession(p, r)
	err := p.session.Run(ctx)
	r.leave()
	p.alarms.end()
	s.ended.count(err)
	s.peers.leave(p, err)
}

func (s *Server) newSession(p *peer, h mcp.Handler) *mcp.Session {
	return mcp.NewSession(p.conn, mcp.Config{
		Role: mcp.Server, Name: s.cfg.Agent, Epoch: s.cfg.Epoch,
		Heartbeat: s.cfg.HeartbeatInterval, HelloTimeout: s.cfg.HelloTimeout, FrameTimeout: s.cfg.FrameTimeout,
		MaxPayload: s.cfg.MaxPayload, WindowRecords: s.cfg.Window, WindowBytes: s.cfg.WindowBytes,
		MaxBuffered: s.cfg.MaxBuffered, MaxRequests: s.cfg.MaxRequests,
		Anonymous: s.remotes[host(p.remote)],
		Answers:   s.answers, Counters: &s.counters,
	}, h)
}

// receiver takes what p publishes.
func (s *Server) receiver(p *peer) *receiver {
	r := &receiver{queue: s.queue, now: s.now, log: s.log, agent: s.cfg.Agent, from: s.cfg.Name, scratches: &s.scratches, level: s.cfg.Level}
	if s.rates != nil {
		r.throttle = s.throttle
	}
	r.admit = func(ctx context.Context, who mcp.Peer) error {
		id, err := s.authenticate(p, who)
		if err != nil {
			return err
		}
		if err := s.expire(p, id); err != nil {
			return err
		}
		if err := s.peers.enter(ctx, p, who, id, s.cfg.HelloTimeout); err != nil {
			return err
		}
		p.ticket.introduced()
		r.identity = id
		r.ownOnly = s.cfg.OwnDeviceOnly || id == nil && s.cfg.Authenticator != nil
		return nil
	}
	return r
}

// throttle makes a peer wait that publishes faster than its devices may.
func (s *Server) throttle(ctx context.Context, batch []share) error {
	for slowed := false; ; slowed = true {
		wait, err := s.rates.take(batch, time.Now())
		switch {
		case err != nil:
			return err
		case wait <= 0:
			return nil
		case !slowed:
			s.rateSlowed.Add(1)
		}
		if !pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

// Peers tells of each peer that has introduced itself how it is, also of those
// that are gone, in no order. It may be called at any time.
func (s *Server) Peers() []PeerStatus { return s.peers.list() }
