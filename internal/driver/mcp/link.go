package mcp

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// LinkConfig of a Link.
type LinkConfig struct {
	DialConfig
	Name  string // of the [[link]]
	Agent string // our id, said in HELLO
	Epoch record.Epoch
	// Token gives what proves us to the device, anew for each session; nil: none.
	Token func() (string, error)

	// Serial says that the line loses and invents bytes.
	Serial bool
	// Anonymous is the device at the other end if it can't answer HELLO: what it
	// publishes is acknowledged, and not de-duplicated. Empty: it must answer.
	Anonymous string
	// Level chooses a queue by what the device calls itself; nil: the link's, without
	// delay.
	Level Level
	// Sinks are those of devices that have one of their own for their polls.
	Sinks map[string]Sink
}

const (
	// helloTime is how long a device may take to answer HELLO. A line is trusted
	// with a device of its own, so nothing is gained by more patience: the lane
	// opens the line again.
	helloTime = 5 * time.Second
	// frameTime is how long it may take over one frame, on a stream.
	frameTime = 10 * time.Second
)

// Link is a line to an MCP device, over any transport. What the device
// publishes goes into the queue, and polls ask it.
type Link struct {
	cfg    LinkConfig
	dialer transport.Dialer
	queue  Queue
	sink   Sink
	now    Now
	log    *slog.Logger

	scratches scratches
	counters  mcp.Counters

	mu       sync.Mutex
	polls    []*poll // in the order of Poll
	session  *mcp.Session
	conn     transport.Conn    // of the session
	byteTime time.Duration     // likewise, on a serial line
	framer   *mcp.SerialFramer // likewise
	resyncs  mcp.ResyncStats   // of the framers before
	stop     context.CancelFunc
	reason   string    // why the session before has ended
	since    time.Time // when the session opened, or the one before ended
	opened   uint64    // sessions
}

var _ scheduler.Link = (*Link)(nil)

// Sink takes polled records, and what they point to. It may be used concurrently.
type Sink interface {
	// Offer takes the record at once, or says that there is no room for it now.
	Offer(r record.Record) bool
	// Deliver returns once the record is accepted; it may wait until ctx ends.
	Deliver(ctx context.Context, r record.Record) error
}

// sinkOf is where a device's polled records go.
func (l *Link) sinkOf(device string) Sink {
	if sink, ok := l.cfg.Sinks[device]; ok {
		return sink
	}
	return l.sink
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
	token, err := l.token()
	if err != nil {
		return err
	}
	framer, serial := l.newFramer()
	conn, err := l.dialer.Dial(ctx, framer)
	if err != nil {
		return err
	}
	handler := &receiver{
		queue: l.queue, now: l.now, log: l.log, agent: l.cfg.Agent, from: l.cfg.Name, scratches: &l.scratches, level: l.cfg.Level,
		admit: func(context.Context, mcp.Peer) error { return nil },
	}
	s := mcp.NewSession(conn, mcp.Config{
		Role: mcp.Client, Name: l.cfg.Agent, Epoch: l.cfg.Epoch, Token: token,
		Heartbeat: l.cfg.HeartbeatInterval, HelloTimeout: helloTime,
		MaxPayload: l.cfg.MaxPayload, WindowRecords: l.cfg.Window, WindowBytes: l.cfg.WindowBytes,
		Anonymous: l.cfg.Anonymous, Counters: &l.counters,
	}, handler)
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.mu.Lock()
	l.session, l.conn, l.framer, l.stop = s, conn, serial, stop
	l.byteTime = conn.Info().CharTime
	l.mu.Unlock()
	go func() {
		err := s.Run(run)
		handler.leave()
		if err != nil {
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
	l.mu.Lock()
	l.since = time.Now()
	l.opened++
	l.mu.Unlock()
	l.log.Info("the device has answered", "endpoint", l.dialer.Endpoint(), "sender", s.Peer().Sender, "software", s.Peer().Software)
	return nil
}

// token is what proves us to the device.
func (l *Link) token() (string, error) {
	if l.cfg.Token == nil {
		return "", nil
	}
	token, err := l.cfg.Token()
	if err != nil {
		return "", fmt.Errorf("mcp: %s: the token: %w", l.dialer.Endpoint(), transport.Permanent(err))
	}
	return token, nil
}

// newFramer makes what finds frames on this link; transports whose messages are
// datagrams ignore it.
func (l *Link) newFramer() (transport.Framer, *mcp.SerialFramer) {
	if l.cfg.Serial {
		serial := mcp.NewSerialFramer(l.cfg.MaxPayload, 0)
		return serial, serial
	}
	return mcp.NewStreamFramer(l.cfg.MaxPayload, frameTime), nil
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
	l.since = time.Now()
	l.resyncs = l.resyncStats()
	l.session, l.conn, l.framer, l.stop = nil, nil, nil, nil
	return nil
}

// way is how requests get to the devices of the link now.
func (l *Link) way() way {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session == nil {
		return way{}
	}
	w := way{session: l.session, byteTime: l.byteTime, largest: l.cfg.MaxPayload}
	if w.largest <= 0 {
		w.largest = mcp.DefaultPayloadSerial // it matters on serial lines only
	}
	return w
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
	State      mcp.State // Closed while there is no session
	Reason     string    // why the session before has ended
	Since      time.Time // when the session opened, or the one before ended
	Reconnects uint64    // sessions after the first
	Sender     string    // the device's name, while there is a session
	Transport  string    // likewise
	Remote     string    // likewise, where the device is
	Identity   string    // likewise, the names in its certificate

	Resync    mcp.ResyncStats
	BadFrames uint64
	Publishes uint64
	Records   uint64
	Repeats   uint64
	SetBacks  uint64 // channels whose sender published again what it had just been told is safe
	Holes     uint64
	Lost      uint64 // best-effort records that never came
	Foreign   uint64 // datagrams without the session's cookie

	HelloTimeouts    uint64
	FrameTimeouts    uint64
	HeartbeatsMissed uint64
	WindowExceeded   uint64
}

// Stats may be called at any time.
func (l *Link) Stats() LinkStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.counters
	stats := LinkStats{
		State: mcp.Closed, Reason: l.reason, Since: l.since, Resync: l.resyncStats(),
		BadFrames: c.BadFrames.Load(), Publishes: c.Publishes.Load(),
		Records: c.Records.Load(), Repeats: c.Repeats.Load(), SetBacks: c.SetBacks.Load(), Holes: c.Holes.Load(),
		Lost: c.Lost.Load(), Foreign: c.Foreign.Load(),
		HelloTimeouts: c.HelloTimeouts.Load(), FrameTimeouts: c.FrameTimeouts.Load(),
		HeartbeatsMissed: c.HeartbeatsMissed.Load(), WindowExceeded: c.WindowExceeded.Load(),
	}
	if l.opened > 0 {
		stats.Reconnects = l.opened - 1
	}
	if l.session != nil {
		info := l.conn.Info()
		stats.State, _ = l.session.State()
		stats.Sender = l.session.Peer().Sender
		stats.Transport, stats.Remote, stats.Identity = info.Transport, info.Remote, strings.Join(info.Names, ", ")
	}
	return stats
}
