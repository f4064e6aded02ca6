package mcp

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
)

// Role says which side of the handshake a Session is. Once open, both sides
// may publish and ask.
type Role uint8

const (
	Client Role = iota // says HELLO
	Server             // answers WELCOME
)

// Config of a Session. Zero values are the defaults.
type Config struct {
	Role     Role
	Name     string       // our sender name; required
	Epoch    record.Epoch // required; a device without a memory draws a new one at each start
	Token    string       // said in HELLO
	Software string       // said to the peer, for people
	Version  uint8        // of the first frame we send; default Version2. Later we speak as we are spoken to.

	Heartbeat    time.Duration // offered; the shorter of both sides' counts; default 30 s
	HelloTimeout time.Duration // for the handshake; default 10 s

	MaxPayload    int // that we take in version 2, bytes; default DefaultPayload, on a serial line DefaultPayloadSerial
	WindowRecords int // records that the peer may have on their way to us; default 1024, negative: it may not publish
	WindowBytes   int // the same in bytes; default 4 MiB

	// Anonymous is the device name of a peer that may do without a handshake,
	// on a trusted line. Its records are acknowledged, and not de-duplicated.
	// Empty: a handshake is a must.
	Anonymous string

	Outboxes []*Outbox // what we publish
	Answers  *Answers  // keeps responses, so that repeated requests run once; nil: no such promise
	Counters *Counters // counted into; nil: nobody looks
}

func (c *Config) setDefaults(info transport.Info) {
	if c.Version == 0 {
		c.Version = Version2
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = 30 * time.Second
	}
	if c.HelloTimeout <= 0 {
		c.HelloTimeout = 10 * time.Second
	}
	if c.MaxPayload <= 0 {
		c.MaxPayload = DefaultPayload
		if info.CharTime > 0 {
			c.MaxPayload = DefaultPayloadSerial
		}
	}
	switch {
	case c.WindowRecords == 0:
		c.WindowRecords = 1024
	case c.WindowRecords < 0:
		c.WindowRecords = 0
	}
	c.WindowBytes = orDefault(c.WindowBytes, 4<<20)
	if c.Counters == nil {
		c.Counters = new(Counters)
	}
}

// Peer is the other side of a Session.
type Peer struct {
	Hello
	Anonymous bool // never introduced itself; Sender is from the configuration
}

// Handler is what a Session does with what the peer says. A Session calls
// Open, Channel and Publish from one goroutine, and Request from several.
// An *Error that one of them returns is told to the peer and ends the session;
// of any other error the peer learns only CodeInternal.
type Handler interface {
	// Open accepts the peer by returning nil.
	Open(ctx context.Context, peer Peer) error

	// Channel tells the last number of the peer's channel that is safe, 0 if
	// there is none. It is called once for each channel of each handshake, and
	// not for an anonymous peer.
	Channel(name string) (safe uint64, err error)

	// Publish takes over the records that p.Records yields; p and all it points
	// to are valid until it returns. The Commit's end is what acknowledges them;
	// nil means that they are safe already. Publish may wait for room, until ctx
	// ends: meanwhile nothing is read from this peer, and its heartbeats are
	// answered for.
	Publish(ctx context.Context, p *Publish) (Commit, error)

	// Request answers the peer. The ID of the response is filled in.
	Request(ctx context.Context, r Request) Response
}

// Commit is the way of published records to the disk.
type Commit interface {
	// Done is closed when they are safe, or have failed to become so.
	Done() <-chan struct{}
	// Err is nil if they are safe. It is valid once Done is closed.
	Err() error
}

// NoHandler refuses everything but the session itself. A handler that only
// answers requests, or only takes records, embeds it.
type NoHandler struct{}

var _ Handler = NoHandler{}

// Open implements Handler: everybody is welcome.
func (NoHandler) Open(context.Context, Peer) error { return nil }

// Channel implements Handler.
func (NoHandler) Channel(string) (uint64, error) { return 0, nil }

// Publish implements Handler: nothing is taken.
func (NoHandler) Publish(context.Context, *Publish) (Commit, error) {
	return nil, refuse(CodeNotAllowed, "records are not taken here")
}

// Request implements Handler: no method is known.
func (NoHandler) Request(_ context.Context, r Request) Response {
	return Response{Code: CodeUnknownMethod, Reason: "no method " + r.Method}
}

// State of a Session.
type State uint32

// The states; the picture stands above Session.
const (
	Connecting State = iota
	Open
	Closing
	Closed
)

func (s State) String() string {
	return [...]string{"CONNECTING", "OPEN", "CLOSING", "CLOSED"}[min(s, Closed)]
}

// Session is the conversation with one peer over one Conn.
//
//	              HELLO and WELCOME, or the first
//	              frame of an anonymous peer
//	┌────────────┐                    ┌──────┐
//	│ CONNECTING ├───────────────────►│ OPEN │
//	└─────┬──────┘                    └──┬─┬─┘
//	      │ refused, too late            │ │ ERROR received, line lost,
//	      │             we stop, or the  │ │ write failed
//	      │             peer misbehaves  │ └───────────────────┐
//	      │                              ▼                     ▼
//	      │                         ┌─────────┐           ┌────────┐
//	      └────────────────────────►│ CLOSING ├──────────►│ CLOSED │
//	                                └─────────┘           └────────┘
//	                                 acknowledges what is under way, says
//	                                 CLOSE or ERROR, waits a moment for the
//	                                 peer to hang up
//
// Two goroutines work for it: one reads and hands on what the peer says; the
// other writes, and is the only one that does. All that is due to be said at
// one moment, acknowledgements first, leaves in one Write.
type Session struct {
	conn    transport.Conn
	info    transport.Info
	cfg     Config
	handler Handler

	start    time.Time     // heard counts from here
	heard    atomic.Int64  // when the last frame came
	blocked  atomic.Bool   // the reader waits in the handler, so silence proves nothing
	version  atomic.Uint32 // that we speak
	wakeup   chan struct{} // the writer has something to do
	opened   chan struct{} // closed when OPEN, or past it
	done     chan struct{} // closed when CLOSED
	stop     context.CancelFunc
	requests chan struct{} // a slot for each request of the peer's that runs
	running  sync.WaitGroup
	publish  Publish    // the reader's scratch
	acks     []Position // likewise
	stranger bool       // the reader has seen a PUBLISH of a peer that does not answer HELLO

	mu        sync.Mutex
	state     State
	end       *ending // set once, by whoever ends the session
	peer      Peer
	heartbeat time.Duration
	control   []byte // frames to send, in order, but for heartbeats, ACK and PUBLISH
	welcome   []byte // that we answered, to be said again if its answer was lost
	beat      bool   // HEARTBEAT is to be sent
	beatAck   bool   // HEARTBEAT_ACK is to be sent
	inbound   map[string]*inbound
	pending   []pending // not safe yet, in the order of arrival
	held      window    // sum over pending
	calls     map[uint64]chan Response
	lastID    uint64
	writing   bool        // a Write is under way
	watchdog  *time.Timer // runs meanwhile
}

// ending says how a session ends.
type ending struct {
	err    error  // for Run and State; nil: we stopped
	tell   *Error // what the peer is told; nil: nothing
	closed bool   // with CLOSE instead of ERROR
	linger bool   // the peer gets a moment to hang up first
}

// Bounds of a session, whoever the peer is.
const (
	maxControl  = 4 << 20         // bytes that may wait to be written when one more frame is added
	keepBuffer  = 64 << 10        // larger buffers are not kept while nothing is written
	maxRunning  = 8               // requests of the peer that run at the same time
	maxWrite    = 128 << 10       // bytes of PUBLISH in one Write
	lingerTime  = time.Second     // for the peer to hang up
	drainTime   = 2 * time.Second // for commits under way when we stop
	holeRepeat  = time.Second     // a hole is named again after that
	resendFirst = 5 * time.Second // a sender on a lossy line repeats after that, above any commit time
	resendMax   = time.Minute
	helloRepeat = time.Second // HELLO on a lossy line
)

// NewSession makes a Session that will own conn. It starts nothing.
func NewSession(conn transport.Conn, cfg Config, h Handler) *Session {
	info := conn.Info()
	cfg.setDefaults(info)
	s := &Session{
		conn: conn, info: info, cfg: cfg, handler: h,
		start:     time.Now(),
		wakeup:    make(chan struct{}, 1),
		opened:    make(chan struct{}),
		done:      make(chan struct{}),
		requests:  make(chan struct{}, maxRunning),
		heartbeat: cfg.Heartbeat,
		inbound:   make(map[string]*inbound),
		calls:     make(map[uint64]chan Response),
		lastID:    randomID(),
	}
	s.version.Store(uint32(cfg.Version))
	return s
}

// Run holds the conversation until it ends, and closes the Conn. It returns
// nil when ctx was cancelled; the peer has then been told, and what was under
// way to the disk is acknowledged. Otherwise the error says why it ended: an
// *Error for a reason that one of the peers gave, else of a class of transport.
// Run may be called once.
func (s *Session) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.mu.Lock()
	s.stop = stop
	s.mu.Unlock()
	defer stop()
	for _, o := range s.cfg.Outboxes {
		o.attach(s.wake)
	}
	if s.cfg.Role == Client {
		s.sayHello()
	}
	readerDone := make(chan struct{})
	go func() {
		defer close(readerDone)
		s.read(work)
	}()
	s.write(ctx, readerDone)

	_ = s.conn.Close()
	stop()
	<-readerDone
	s.running.Wait()
	for _, o := range s.cfg.Outboxes {
		o.attach(nil)
	}
	return s.finish()
}

// finish makes the session CLOSED.
func (s *Session) finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == Connecting {
		close(s.opened)
	}
	s.state = Closed
	close(s.done)
	return s.end.err
}

// State tells the state, and why the session is no longer OPEN: nil where it
// is, or where we stopped it.
func (s *Session) State() (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return s.state, s.end.err
	}
	return s.state, nil
}

// Opened returns a channel that is closed once the session has become OPEN or
// failed to; State tells which.
func (s *Session) Opened() <-chan struct{} { return s.opened }

// Done returns a channel that is closed when the session is CLOSED.
func (s *Session) Done() <-chan struct{} { return s.done }

// Peer is who the other side is; empty before OPEN.
func (s *Session) Peer() Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer
}

// Close ends the session from our side, telling the peer the reason, and
// returns at once. Run then returns reason.
func (s *Session) Close(reason *Error) {
	s.finishWith(ending{err: reason, tell: reason, closed: true, linger: true})
}

// fail ends the session because of err. A peer that could still listen is told.
func (s *Session) fail(err error) {
	var e *Error
	switch {
	case errors.As(err, &e) && e.Remote:
		s.finishWith(ending{err: err})
	case errors.Is(err, transport.ErrLost), errors.Is(err, context.Canceled):
		s.finishWith(ending{err: err})
	default:
		s.finishWith(ending{err: err, tell: asError(err), linger: true})
	}
}

// finishWith sets how the session ends, if nothing else has ended it before.
func (s *Session) finishWith(e ending) {
	s.mu.Lock()
	first := s.end == nil
	if first {
		s.end = &e
	}
	stop := s.stop
	s.mu.Unlock()
	if first && s.conn.SetWriteDeadline(time.Now().Add(s.farewell())) != nil {
		_ = s.conn.Close()
	}
	if stop != nil {
		stop() // a handler that waits gives up
	}
	s.wake()
}

// farewell is how long the last Write may take, and one that is under way.
func (s *Session) farewell() time.Duration {
	return drainTime + lingerTime + 2*DefaultPayloadSerial*s.info.CharTime
}

// ended says whether the end has begun.
func (s *Session) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end != nil
}

func (s *Session) wake() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// post queues a frame for the writer.
func (s *Session) post(c Command, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.postLocked(c, payload)
}

func (s *Session) postLocked(c Command, payload []byte) error {
	version := uint8(s.version.Load())
	if len(payload) > s.peerPayload(version) {
		return refuse(CodeTooLarge, "%s of %d bytes, the peer takes %d", c, len(payload), s.peerPayload(version))
	}
	if len(s.control) > maxControl {
		return refuse(CodeBusy, "the peer does not read what it asks for")
	}
	control, err := AppendFrame(s.control, version, c, payload)
	if err != nil {
		return err
	}
	s.control = control
	s.wake()
	return nil
}

// peerPayload is the largest payload that the peer takes. The caller holds mu.
func (s *Session) peerPayload(version uint8) int {
	switch {
	case version == Version1:
		return MaxPayloadV1
	case s.peer.MaxPayload > 0:
		return min(s.peer.MaxPayload, MaxPayloadV2)
	case s.info.CharTime > 0:
		return DefaultPayloadSerial
	}
	return DefaultPayload
}
