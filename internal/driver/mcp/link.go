package mcp

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// LinkConfig of a Link.
type LinkConfig struct {
	Name  string // of the [[link]]
	Agent string // our id, said in HELLO
	Epoch record.Epoch

	// Serial says that the line loses and invents bytes.
	Serial bool
	// Anonymous is the device at the other end if it can't answer HELLO: what it
	// publishes is acknowledged, and not de-duplicated. Empty: it must answer.
	Anonymous string
}

// helloTime is how long a device may take to answer HELLO. A line is trusted
// with a device of its own, so nothing is gained by more patience: the lane
// opens the line again.
const helloTime = 5 * time.Second

// Link is a line to an MCP device. What the device publishes goes into the
// queue, and polls ask it.
type Link struct {
	cfg    LinkConfig
	dialer transport.Dialer
	queue  Queue
	sink   Sink
	now    Now
	log    *slog.Logger

	counters mcp.Counters

	mu      sync.Mutex
	session *mcp.Session
	framer  *mcp.SerialFramer // of the session, on a serial line
	resyncs mcp.ResyncStats   // of the framers before
	stop    context.CancelFunc
	reason  string // why the session before has ended
}

var _ scheduler.Link = (*Link)(nil)

// Sink takes polled records.
type Sink interface {
	// Deliver returns once the record is accepted; it may wait until ctx ends.
	Deliver(ctx context.Context, r record.Record) error
}

// NewLink makes a Link; it opens nothing.
func NewLink(d transport.Dialer, cfg LinkConfig, queue Queue, sink Sink, now Now, log *slog.Logger) (*Link, error) {
	if err := record.CheckName(cfg.Agent); err != nil {
		return nil, fmt.Errorf("mcp: the agent's id %w", err)
	}
	return &Link{cfg: cfg, dialer: d, queue: queue, sink: sink, now: now, log: log}, nil
}

// Open implements scheduler.Link.
func (l *Link) Open(ctx context.Context) error {
	var framer transport.Framer = mcp.NewStreamFramer(0)
	var serial *mcp.SerialFramer
	if l.cfg.Serial {
		serial = mcp.NewSerialFramer(0, 0)
		framer = serial
	}
	conn, err := l.dialer.Dial(ctx, framer)
	if err != nil {
		return err
	}
	handler := &receiver{
		queue: l.queue, now: l.now, log: l.log, agent: l.cfg.Agent,
		admit: func(mcp.Peer) error { return nil },
	}
	s := mcp.NewSession(conn, mcp.Config{
		Role: mcp.Client, Name: l.cfg.Agent, Epoch: l.cfg.Epoch, HelloTimeout: helloTime,
		Anonymous: l.cfg.Anonymous, Counters: &l.counters,
	}, handler)
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.mu.Lock()
	l.session, l.framer, l.stop = s, serial, stop
	l.mu.Unlock()
	go func() {
		if err := s.Run(run); err != nil {
			l.log.Info("the session has ended", "endpoint", l.dialer.Endpoint(), "reason", err)
		}
	}()
	select {
	case <-s.Opened():
	case <-ctx.Done():
		return fmt.Errorf("mcp: %s: waiting for WELCOME: %w", l.dialer.Endpoint(), closeWith(l, ctx.Err()))
	}
	if state, err := s.State(); state != mcp.Open {
		return fmt.Errorf("mcp: %s: %w", l.dialer.Endpoint(), closeWith(l, err))
	}
	l.log.Info("the device has answered", "endpoint", l.dialer.Endpoint(), "sender", s.Peer().Sender, "software", s.Peer().Software)
	return nil
}

// closeWith closes the link and returns err.
func closeWith(l *Link, err error) error {
	_ = l.Close()
	return err
}

// Lost implements scheduler.Link.
func (l *Link) Lost() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session == nil {
		return nil
	}
	return l.session.Done()
}

// Close implements scheduler.Link.
func (l *Link) Close() error {
	l.mu.Lock()
	s, stop := l.session, l.stop
	l.mu.Unlock()
	if s == nil {
		return nil
	}
	stop()
	<-s.Done()
	_, err := s.State()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.reason = err.Error()
	}
	l.resyncs = l.resyncStats()
	l.session, l.framer, l.stop = nil, nil, nil
	return nil
}

// current is the open session, or nil.
func (l *Link) current() *mcp.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session
}

// resyncStats adds up over all framers. The caller holds mu.
func (l *Link) resyncStats() mcp.ResyncStats {
	sum := l.resyncs
	if l.framer != nil {
		now := l.framer.Stats()
		sum.SkippedBytes += now.SkippedBytes
		sum.BadFrames += now.BadFrames
		sum.Ignored += now.Ignored
	}
	return sum
}

// LinkStats of a Link; the numbers only rise.
type LinkStats struct {
	State     mcp.State // Closed while there is no session
	Reason    string    // why the session before has ended
	Sender    string    // the device's name, while there is a session
	Resync    mcp.ResyncStats
	BadFrames uint64
	Publishes uint64
	Records   uint64
	Repeats   uint64
	Holes     uint64
}

// Stats may be called at any time.
func (l *Link) Stats() LinkStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	stats := LinkStats{
		State: mcp.Closed, Reason: l.reason, Resync: l.resyncStats(),
		BadFrames: l.counters.BadFrames.Load(), Publishes: l.counters.Publishes.Load(),
		Records: l.counters.Records.Load(), Repeats: l.counters.Repeats.Load(), Holes: l.counters.Holes.Load(),
	}
	if l.session != nil {
		stats.State, _ = l.session.State()
		stats.Sender = l.session.Peer().Sender
	}
	return stats
}
