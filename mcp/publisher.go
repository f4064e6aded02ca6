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

	// Waits between attempts grow from RetryMin to RetryMax with full jitter,
	// so that a thousand devices do not return as one. Defaults 100 ms and 30 s.
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
	session *Session
}

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
		cfg.Framer = func() transport.Framer { return NewStreamFramer(cfg.Session.MaxPayload) }
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
	wait := p.cfg.RetryMin
	for {
		opened, err := p.connect(ctx)
		if opened && !IsCode(err, CodeReplaced) { // two devices of one name must not chase each other
			wait = p.cfg.RetryMin
		}
		if IsCode(err, CodeEpochSpent) {
			p.cfg.Session.Epoch = NewEpoch()
			p.renumber()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(mathrand.N(wait)):
		}
		p.cfg.Log.Info("connecting again", "to", p.cfg.Dialer.Endpoint(), "reason", err)
		wait = min(2*wait, p.cfg.RetryMax)
	}
}

// connect holds one session from dialing to its end.
func (p *Publisher) connect(ctx context.Context) (opened bool, err error) {
	conn, err := p.cfg.Dialer.Dial(ctx, p.cfg.Framer())
	if err != nil {
		return false, err
	}
	s := NewSession(conn, p.cfg.Session, p.cfg.Handler)
	p.setSession(s)
	defer p.setSession(nil)
	err = s.Run(ctx)
	return s.Peer().Sender != "", err
}

func (p *Publisher) setSession(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = s
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
