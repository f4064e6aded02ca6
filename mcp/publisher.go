package mcp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
)

// PublisherConfig describes a Publisher.
type PublisherConfig struct {
	Session Config       // Name is required. Epoch 0 draws one; Outboxes is the Publisher's own business.
	Outbox  OutboxConfig // of the one channel

	// Dialer opens the way to the receiver, also where the Session's role is
	// Server: on a serial line somebody must open the port too.
	Dialer transport.Dialer
	// Framer makes what finds the frames; default NewStreamFramer. A serial
	// line needs NewSerialFramer.
	Framer  func() transport.Framer
	Handler Handler      // default NoHandler
	Log     *slog.Logger // default: nobody reads it

	// Token returns what vouches for the sender, anew for each connection: the
	// file it stands in may have been renewed. nil: Session.Token is used.
	Token func() (string, error)

	// The wait before the next attempt is drawn between 0 and a bound (full
	// jitter, so that a thousand devices do not return as one). The bound begins
	// at RetryMin, doubles with each attempt up to RetryMax, and begins again
	// after a session that was open for a minute. There is no last attempt.
	// Defaults 100 ms and 30 s.
	RetryMin, RetryMax time.Duration
}

// Publisher is a device that loses nothing: what Publish takes stays in memory
// until the receiver has it safe, however often the connection breaks. Nothing
// survives the end of the process: what Stats does not count as acknowledged
// then is for the caller to publish again.
type Publisher struct {
	*Outbox
	cfg PublisherConfig

	mu      sync.Mutex
	session *Session  // nil while there is none
	since   time.Time // when Run began, or ended, or a session that was open did
	reason  error     // why the last session, or the attempt at one, ended
	running bool
	token   string // said last
}

// stableTime is how long a session must have been open to count as a success:
// a peer that accepts and then refuses is not asked more often than one that is
// not there.
const stableTime = time.Minute

// NewPublisher makes a Publisher. It starts nothing; Publish may be called
// before Run.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	if err := record.CheckName(cfg.Session.Name); err != nil {
		return nil, fmt.Errorf("mcp: sender name %w", err)
	}
	outbox, err := NewOutbox(cfg.Outbox)
	if err != nil {
		return nil, err
	}
	cfg.Session.Outboxes = []*Outbox{outbox}
	if cfg.Session.Epoch == 0 {
		cfg.Session.Epoch = NewEpoch()
	}
	if cfg.Framer == nil {
		cfg.Framer = func() transport.Framer { return NewStreamFramer(cfg.Session.MaxPayload, 0) }
	}
	if cfg.Handler == nil {
		cfg.Handler = NoHandler{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.RetryMin <= 0 {
		cfg.RetryMin = 100 * time.Millisecond
	}
	if cfg.RetryMax <= 0 {
		cfg.RetryMax = 30 * time.Second
	}
	return &Publisher{Outbox: outbox, cfg: cfg}, nil
}

// NewEpoch draws an epoch that no other start of this device has had.
func NewEpoch() record.Epoch {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return record.Epoch(binary.BigEndian.Uint64(b[:]) | 1)
}

// Run connects, and connects again, until ctx is cancelled. It returns nil.
func (p *Publisher) Run(ctx context.Context) error {
	p.began(true)
	defer p.began(false)
	bound := p.cfg.RetryMin
	for {
		stable, err := p.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if stable {
			bound = p.cfg.RetryMin
		}
		if IsCode(err, CodeEpochSpent) {
			p.cfg.Session.Epoch = NewEpoch()
			p.renumber()
		}
		wait := mathrand.N(bound)
		if IsCode(err, CodeTokenExpired) && p.tokenIsNew() {
			wait = 0
		}
		p.cfg.Log.Info("not connected", "to", p.cfg.Dialer.Endpoint(), "reason", err, "again_in", wait)
		if !pause(ctx, wait) {
			return nil
		}
		bound = min(2*bound, p.cfg.RetryMax)
	}
}

// pause returns false if ctx ends first.
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

// connect holds one session from dialing to its end, and says whether it was
// open for long.
func (p *Publisher) connect(ctx context.Context) (stable bool, err error) {
	defer func() { p.ended(err) }()
	cfg := p.cfg.Session
	if p.cfg.Token != nil {
		if cfg.Token, err = p.cfg.Token(); err != nil {
			return false, fmt.Errorf("mcp: the token: %w", err)
		}
		p.token = cfg.Token
	}
	conn, err := p.cfg.Dialer.Dial(ctx, p.cfg.Framer())
	if err != nil {
		return false, err
	}
	s := NewSession(conn, cfg, p.cfg.Handler)
	p.mu.Lock()
	p.session = s
	p.mu.Unlock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		<-s.Opened()
		if s.Peer().Sender != "" {
			p.cfg.Log.Info("connected", "to", p.cfg.Dialer.Endpoint(), "receiver", s.Peer().Sender, "software", s.Peer().Software)
		}
	}()
	err = s.Run(ctx)
	<-told
	since := s.openSince()
	return !since.IsZero() && time.Since(since) >= stableTime, err
}

// tokenIsNew says whether there is another token than the one that was said.
func (p *Publisher) tokenIsNew() bool {
	if p.cfg.Token == nil {
		return false
	}
	token, err := p.cfg.Token()
	return err == nil && token != p.token
}

func (p *Publisher) began(running bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.since = running, time.Now()
}

func (p *Publisher) ended(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != nil && !p.session.openSince().IsZero() {
		p.since = time.Now()
	}
	p.session, p.reason = nil, err
}

// State tells how the publisher is: OPEN while it has a session that is;
// CONNECTING while it wants one; CLOSED while Run does not run. since is when
// that began, and the reason is why there is no open session, as far as is known.
func (p *Publisher) State() (state State, since time.Time, reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return Closed, p.since, p.reason
	}
	if p.session != nil {
		if at := p.session.openSince(); !at.IsZero() {
			state, reason := p.session.State()
			return state, at, reason
		}
	}
	return Connecting, p.since, p.reason
}

// ErrNotConnected is the answer to a request while there is no session.
var ErrNotConnected = errors.New("not connected")

// Call asks the receiver through the session of the moment: see Session.Call.
func (p *Publisher) Call(ctx context.Context, r Request) (Response, error) {
	p.mu.Lock()
	s := p.session
	p.mu.Unlock()
	if s == nil {
		return Response{}, fmt.Errorf("mcp: request %s: %w", r.Method, ErrNotConnected)
	}
	return s.Call(ctx, r)
}
