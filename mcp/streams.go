package mcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// Where a Conn has streams beside it (QUIC), records do not go over the Conn:
// each channel has a stream of its own, so that a lost packet, or a receiver
// that does not get on, holds up that channel and nothing else. Best effort goes
// in datagrams. The Conn is left to heartbeats, acknowledgements and requests.
// A channel for which the peer allows no stream any more goes over the Conn
// after all.

// openTime is how long a lane waits for the peer to allow a stream. It has said
// how many it allows in the handshake, so waiting seldom helps.
const openTime = 250 * time.Millisecond

// lane publishes what is in one Outbox. It has a goroutine, which may be stuck in
// a Write while others get on.
type lane struct {
	s      *Session
	outbox *Outbox
	wakeup chan struct{}
	stream transport.Conn // opened for the first PUBLISH
	buf    []byte
	moved  atomic.Bool // the peer allows no stream: the Conn's writer sends what is in outbox, and run has ended
}

// prepareStreams makes the lanes, if the Conn has streams.
func (s *Session) prepareStreams() {
	if s.info.Streams == nil {
		return
	}
	for _, o := range s.cfg.Outboxes {
		s.lanes = append(s.lanes, &lane{s: s, outbox: o, wakeup: make(chan struct{}, 1)})
	}
}

// attachOutboxes has the outboxes tell whoever sends what is in them.
func (s *Session) attachOutboxes() {
	for i, o := range s.cfg.Outboxes {
		if len(s.lanes) > 0 {
			o.attach(s.lanes[i].wake)
		} else {
			o.attach(s.wake)
		}
	}
}

// startStreams lets records flow, now that the session is OPEN.
func (s *Session) startStreams() {
	if s.info.Streams == nil {
		return
	}
	s.running.Go(func() { s.acceptStreams(s.working) })
	if datagrams := s.info.Streams.Datagrams(); datagrams != nil {
		s.running.Go(func() { s.readStream(s.working, datagrams) })
	}
	for _, l := range s.lanes {
		s.running.Go(func() { l.run(s.working) })
	}
}

// wakeLanes has them look whether they may send.
func (s *Session) wakeLanes() {
	for _, l := range s.lanes {
		l.wake()
	}
}

// hasLane says whether a lane sends what is in that outbox, and not the Conn's
// writer.
func (s *Session) hasLane(outbox int) bool {
	return len(s.lanes) > 0 && !s.lanes[outbox].moved.Load()
}

func (l *lane) wake() {
	if l.moved.Load() {
		l.s.wake()
		return
	}
	select {
	case l.wakeup <- struct{}{}:
	default:
	}
}

// run sends until the session ends, or the lane has moved to the Conn. The
// Conn's end ends a Write.
func (l *lane) run(ctx context.Context) {
	for {
		err := l.sendAll(ctx)
		if errors.Is(err, errNoStream) {
			l.moved.Store(true)
			l.s.wake()
			return
		}
		if err != nil {
			l.s.failSending(err)
			break
		}
		select {
		case <-l.wakeup:
			continue
		case <-ctx.Done():
		}
		break
	}
	if l.stream != nil {
		_ = l.stream.Close()
	}
}

// failSending ends the session over what a lane could not send.
func (s *Session) failSending(err error) {
	var e *Error
	if errors.As(err, &e) || errors.Is(err, transport.ErrTooLarge) {
		s.fail(err)
		return
	}
	s.finishWith(ending{err: writeFailed(err)})
}

// sendAll sends until nothing more may be sent.
func (l *lane) sendAll(ctx context.Context) error {
	for {
		datagram, err := l.collect()
		switch {
		case errors.Is(err, errWantsStream):
			err = l.open(ctx)
		case err != nil || len(l.buf) == 0:
			return err
		case datagram:
			err = l.s.info.Streams.Datagrams().Write(l.buf)
		default:
			err = l.stream.Write(l.buf)
		}
		if err != nil {
			return err
		}
	}
}

var (
	errWantsStream = errors.New("there is something to send, and no stream yet")
	errNoStream    = errors.New("the peer allows no further stream")
)

// open opens the stream. That comes before anything is taken out of the outbox,
// so that a lane that moves has nothing on its way.
func (l *lane) open(ctx context.Context) (err error) {
	soon, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	l.stream, err = l.s.info.Streams.Open(soon)
	if err == nil {
		return nil
	}
	l.stream = nil
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return errNoStream
	}
	return err
}

// collect takes into buf what the outbox may send now; datagram says that it
// belongs into one. It fails with errWantsStream where that wants the stream first.
func (l *lane) collect() (datagram bool, err error) {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	l.buf = l.buf[:0]
	if s.state != Open || s.end != nil || s.peer.WindowRecords == 0 || l.outbox.empty() {
		return false, nil
	}
	limit, payload := maxWrite, s.peerPayload(uint8(s.version.Load()))
	if l.outbox.cfg.BestEffort {
		if room := s.datagramRoom(); l.outbox.fitsInto(room) {
			limit, payload, datagram = 1, room, true
		}
	}
	if !datagram && l.stream == nil {
		return false, errWantsStream
	}
	for len(l.buf) < limit {
		var b batch
		a := s.share(l.outbox)
		a.payload = payload
		l.buf, b, err = l.outbox.appendFrame(l.buf, uint8(s.version.Load()), a)
		if err != nil || b.records == 0 {
			break
		}
	}
	if len(l.buf) > 0 {
		s.beats.sent = s.now()
		s.beats.spoken = s.beats.sent
	}
	return datagram, err
}

// share is what of the peer's window is open to one outbox now. Where there are
// several, one that is always full gets no more than it leaves to the others:
// alone half of the window, two a third each, and there is always room for one
// more. The caller holds mu.
func (s *Session) share(o *Outbox) allowance {
	a := s.allowance(uint8(s.version.Load()))
	if len(s.lanes) > 1 {
		records, bytes := o.inFlight()
		a.records = (a.records - records + 1) / 2
		a.bytes -= bytes // halved, it might never fit a large record; a batch is small
	}
	return a
}

// datagramRoom is the largest payload that goes as a datagram beside the Conn; 0:
// none does.
func (s *Session) datagramRoom() int {
	datagrams := s.info.Streams.Datagrams()
	if datagrams == nil {
		return 0
	}
	return min(datagrams.Info().MaxMessage-maxOverhead, s.peerPayload(uint8(s.version.Load())))
}

// empty says whether nothing is kept.
func (o *Outbox) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count() == 0
}

// fitsInto says whether a PUBLISH with the first record kept has a payload of at
// most so many bytes.
func (o *Outbox) fitsInto(payload int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count() > 0 && o.overhead()+int(o.sizes[o.first]) <= payload
}

// acceptStreams reads what the peer publishes, until the session ends.
func (s *Session) acceptStreams(ctx context.Context) {
	var open, unfinished atomic.Int64
	for {
		framer := &sharedFramer{StreamFramer: NewStreamFramer(s.cfg.MaxPayload, s.cfg.FrameTimeout), all: &unfinished, limit: int64(s.cfg.WindowBytes + s.cfg.MaxPayload)}
		stream, err := s.info.Streams.Accept(ctx, framer)
		if err != nil {
			return // the Conn ends too, and its reader says why
		}
		if open.Add(1) > MaxChannels {
			_ = stream.Close()
			s.fail(refuse(CodeBusy, "more than %d streams", MaxChannels))
			return
		}
		s.running.Go(func() {
			defer open.Add(-1)
			defer framer.release()
			defer func() { _ = stream.Close() }()
			s.readStream(ctx, stream)
		})
	}
}

// readStream takes the PUBLISH frames of one stream, or the datagrams.
func (s *Session) readStream(ctx context.Context, stream transport.Conn) {
	for {
		msg, err := stream.Read()
		if err == nil {
			err = s.handleBeside(ctx, msg)
		}
		switch {
		case err == nil:
		case errors.Is(err, transport.ErrLost), errors.Is(err, net.ErrClosed):
			return // that is the stream's end; the Conn's reader sees its own
		default:
			if errors.Is(err, transport.ErrFrame) || errors.Is(err, transport.ErrTooLarge) {
				s.cfg.Counters.BadFrames.Add(1)
			}
			s.fail(err)
			return
		}
	}
}

// handleBeside takes a frame that did not come on the Conn.
func (s *Session) handleBeside(ctx context.Context, msg []byte) error {
	f, err := ParseFrame(msg)
	if err != nil {
		return err
	}
	s.heard.Store(int64(s.now()))
	switch {
	case s.ended():
		return net.ErrClosed
	case f.Command != CommandPublish:
		return refuse(CodeUnexpected, "%s beside the first stream", f.Command)
	}
	return s.handlePublish(ctx, f.Payload)
}

// sharedFramer is a StreamFramer of one of several streams, which together may
// have no more bytes of unfinished frames announced than limit: a peer that
// keeps to its window has not.
type sharedFramer struct {
	*StreamFramer
	all   *atomic.Int64
	limit int64
	mine  int64 // of all
}

var _ transport.Framer = (*sharedFramer)(nil)

// Split implements transport.Framer.
func (f *sharedFramer) Split(buf []byte, idle bool) (int, []byte, error) {
	advance, msg, err := f.StreamFramer.Split(buf, idle)
	if err != nil || msg != nil {
		f.release()
		return advance, msg, err
	}
	size, _ := frameSize(buf, f.maxPayload) // the StreamFramer has seen that it is good
	f.all.Add(int64(size) - f.mine)
	f.mine = int64(size)
	if f.all.Load() > f.limit {
		return len(buf), nil, fmt.Errorf("%w: unfinished frames for more than the window", transport.ErrTooLarge)
	}
	return advance, nil, nil
}

// release gives back what the unfinished frame took.
func (f *sharedFramer) release() {
	f.all.Add(-f.mine)
	f.mine = 0
}
