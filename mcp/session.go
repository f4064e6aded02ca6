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
	FrameTimeout time.Duration // for a frame that was begun, where the Conn has Streams; default DefaultFrameTimeout

	MaxPayload    int // that we take in version 2, bytes; default DefaultPayload, on a serial line DefaultPayloadSerial
	WindowRecords int // records that the peer may have on their way to us; default 1024, negative: it may not publish
	WindowBytes   int // the same in bytes; default 4 MiB
	MaxRequests   int // of the peer that run at the same time, more get CodeBusy; default 8
	// MaxBuffered is how many bytes may wait until the peer reads them, PUBLISH
	// apart, which has the peer's window; default 4 MiB. One frame may always
	// wait, however large. A peer that lets its answers pile up beyond it is
	// disconnected, and a Request that would is refused, with CodeBusy.
	MaxBuffered int

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
	if info.MaxMessage > 0 {
		c.MaxPayload = min(c.MaxPayload, datagramPayload(info))
	}
	switch {
	case c.WindowRecords == 0:
		c.WindowRecords = 1024
	case c.WindowRecords < 0:
		c.WindowRecords = 0
	}
	c.WindowBytes = orDefault(c.WindowBytes, 4<<20)
	c.MaxRequests = orDefault(c.MaxRequests, 8)
	c.MaxBuffered = orDefault(c.MaxBuffered, 4<<20)
	if c.Counters == nil {
		c.Counters = new(Counters)
	}
}

// Peer is the other side of a Session.
type Peer struct {
	Hello
	Anonymous bool // never introduced itself; Sender is from the configuration

	Names     []string        // that its certificate proves: see transport.Info
	Confirmed <-chan struct{} // closed once what it says can be no replay; nil: it never was one
}

// Handler is what a Session does with what the peer says. A Session calls
// Open, Channel and Publish one after the other, and Request concurrently.
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

	// Request answers the peer. The ID of the response is filled in. ctx ends with
	// the session, and when the request's TimeLeft is over: what was not begun by
	// then is not to be done, and answered with CodeBusy.
	Request(ctx context.Context, r Request) Response
}

// SetBackHandler is a Handler that wants to know of a peer that does not know what it
// has sent: though it was told at the beginning of the session that a channel is safe
// up to a number, it publishes numbers up to that again. A peer that was restored
// from a copy does, and what it means by them is not what is stored: it is dropped
// as a repeat, and the peer ought to have begun a new epoch. It is called once for each
// channel of a session, and must not wait.
type SetBackHandler interface {
	SetBack(channel string, safe, published uint64)
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
// Run's goroutine reads, and hands on what the peer says; an idle session has
// no other. Writing is the business of whoever holds the pen:
//
//   - Whoever has something to say puts it where collect finds it, and then
//     takes the pen if it is free. If not, the holder is told to look again, and
//     the sayer goes its way.
//   - The holder collects all that is due, acknowledgements before records, and
//     sends it with one Write, again and again until nothing is due. Then it
//     puts the pen down.
//   - The reader never writes, for two readers that wait in Write would wait for
//     ever: it gives the pen to a goroutine of its own. So does Publish. What
//     answers a request writes by itself, and so does Request, if the frame is
//     sure to find room in the peer's buffers.
//   - The last holder says goodbye and keeps the pen.
//
// One timer does what time demands: heartbeats, repetitions, silence. A
// goroutine waits for the disk while a commit is under way, and only then.
type Session struct {
	conn    transport.Conn
	info    transport.Info
	cfg     Config
	handler Handler

	start    time.Time     // heard counts from here
	heard    atomic.Int64  // when the last frame came
	blocked  atomic.Bool   // the reader waits in the handler, so silence proves nothing
	version  atomic.Uint32 // that we speak
	pen      atomic.Uint32 // see pen.go
	lent     atomic.Uint64 // which Write a caller of Request does now; 0: none
	working  context.Context
	stop     context.CancelFunc // ends working
	running  sync.WaitGroup     // handlers of requests, and who waits for commits
	outboxes map[string]*Outbox // by channel
	lanes    []*lane            // that publish what is in them; see streams.go
	taking   sync.Mutex         // held while a PUBLISH is handled
	publish  Publish            // scratch of who does
	acks     []Position         // likewise
	stranger bool               // the reader has seen a PUBLISH of a peer that does not answer HELLO
	w        writer             // belongs to who holds the pen

	mu        sync.Mutex
	opened    event // it is OPEN, or past it
	done      event // it is CLOSED
	hungUp    event // the reader has left
	parted    event // goodbye is said
	state     State
	end       *ending // set once, by whoever ends the session
	peer      Peer
	openedAt  time.Time // zero: it never was OPEN
	heartbeat time.Duration
	control   []byte // frames to send, in order, but for heartbeats, ACK and PUBLISH
	leaving   int    // bytes of such frames in the Write under way
	welcome   []byte // that we answered, to be said again if its answer was lost
	beat      bool   // HEARTBEAT is to be sent
	beatAck   bool   // HEARTBEAT_ACK is to be sent
	inbound   map[string]*inbound
	pending   []pending // not safe yet, in the order of arrival
	held      window    // sum over pending

	// On a link that loses frames; see pace.go and reorder.go:
	pace       *pace       // of what we publish
	overtaking *overtaking // of what the peer does
	waiting    window      // sum over what came early
	ahead      int         // PUBLISH frames that did

	settling bool       // a goroutine waits for the first of pending
	requests int        // of the peer's that run
	resting  []chan job // of workers; see worker.go
	calls    map[uint64]call
	callsDue time.Duration // since start, when the first of them gives up; 0: none does
	spare    chan outcome  // for the next call
	lastID   uint64
	beats    beats
	written  uint64 // bytes given to Write
	proven   uint64 // so many of them the peer has certainly read
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
	maxWrite    = 64 << 10        // bytes of PUBLISH in one Write
	keepControl = 16 << 10        // a larger buffer is not kept for the next frames
	lingerTime  = time.Second     // for the peer to hang up
	drainTime   = 2 * time.Second // for commits under way when we stop
	helloRepeat = time.Second     // HELLO on a lossy line
)

// NewSession makes a Session that will own conn. It starts nothing.
func NewSession(conn transport.Conn, cfg Config, h Handler) *Session {
	info := conn.Info()
	cfg.setDefaults(info)
	s := &Session{
		conn: conn, info: info, cfg: cfg, handler: h,
		start:     time.Now(),
		heartbeat: cfg.Heartbeat,
		lastID:    randomID(),
	}
	s.prepareLink()
	s.prepareStreams()
	s.w.s = s
	s.working, s.stop = context.WithCancel(context.Background())
	s.version.Store(uint32(cfg.Version))
	return s
}

// Run holds the conversation until it ends, and closes the Conn. It returns
// nil when ctx was cancelled; the peer has then been told, and what was under
// way to the disk is acknowledged. Otherwise the error says why it ended: an
// *Error for a reason that one of the peers gave, else of a class of transport.
// Run may be called once.
func (s *Session) Run(ctx context.Context) error {
	defer s.stop()
	release := context.AfterFunc(ctx, func() {
		s.finishWith(ending{tell: &Error{Code: CodeGoingAway}, closed: true, linger: true})
	})
	defer release()
	s.attachOutboxes()
	s.startTimer()
	defer s.stopTimer()
	if s.cfg.Role == Client {
		s.sayHello()
	}
	s.read(s.working)
	s.happens(&s.hungUp)
	<-s.wait(&s.parted)
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
	s.state = Closed
	s.refuseCalls()
	s.opened.happens()
	s.done.happens()
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
func (s *Session) Opened() <-chan struct{} { return s.wait(&s.opened) }

// Done returns a channel that is closed when the session is CLOSED.
func (s *Session) Done() <-chan struct{} { return s.wait(&s.done) }

// happens is event.happens for a caller that does not hold mu.
func (s *Session) happens(e *event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.happens()
}

// wait is event.wait for a caller that does not hold mu.
func (s *Session) wait(e *event) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.wait()
}

// openSince is when the session became OPEN; zero: it never did.
func (s *Session) openSince() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openedAt
}

// Peer is who the other side is; empty before OPEN. Its Token is left out: only
// Handler.Open sees it.
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
		s.dismiss()
	}
	s.mu.Unlock()
	if !first {
		return
	}
	s.cfg.Counters.ended(e.err)
	if e.tell == nil || s.conn.SetWriteDeadline(time.Now().Add(s.farewell())) != nil {
		_ = s.conn.Close()
	}
	s.stop() // a handler that waits gives up
	s.wake() // the last one says goodbye
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

// post queues a frame and has it written.
func (s *Session) post(c Command, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.postLocked(c, payload)
}

// postLocked is post for a caller that holds mu.
func (s *Session) postLocked(c Command, payload []byte) error {
	start := s.begin(c)
	s.control = append(s.control, payload...)
	if err := s.finishFrame(start); err != nil {
		return err
	}
	s.wake()
	return nil
}

// begin begins a frame in control, whose payload the caller appends there
// before finishFrame. The caller holds mu.
func (s *Session) begin(c Command) (start int) {
	start = len(s.control)
	s.control = beginFrame(s.control, uint8(s.version.Load()), c)
	return start
}

// finishFrame completes the frame that begins at start, or takes it back if it
// is too large for the peer, or too much is waiting. The caller holds mu.
func (s *Session) finishFrame(start int) error {
	frame := s.control[start:]
	size, version, command := len(frame)-headerSize, frame[2], Command(frame[3])
	if limit := s.peerPayload(version); size > limit {
		s.control = s.control[:start]
		return refuse(CodeTooLarge, "%s of %d bytes, the peer takes %d", command, size, limit)
	}
	if waiting := s.leaving + start; waiting > 0 && waiting+len(frame) > s.cfg.MaxBuffered {
		s.control = s.control[:start]
		s.cfg.Counters.BufferExceeded.Add(1)
		return refuse(CodeBusy, "the peer does not read: %d bytes wait for it", waiting)
	}
	var err error
	s.control, err = endFrame(s.control, start)
	return err
}
