// Package modbus is a Modbus master: RTU on a serial line or through a gateway
// that passes RTU frames over TCP, and Modbus TCP.
//
// A Link is the line, and does one transaction at a time on it. A Poll reads
// the points of one device, in as few requests as the device's limits allow,
// and makes a record of them. A scheduler.Lane owns the time: it opens the
// Link and says when a Poll takes its next step.
//
// What comes back is believed only if it can be the reply to what was asked.
// Everything else (another unit, function, length or transaction, a bad CRC,
// noise) is counted and discarded while the time-out goes on.
//
// The standards, from modbus.org: Modbus Application Protocol V1.1b3, Modbus
// over Serial Line V1.02, Modbus Messaging on TCP/IP V1.0b.
package modbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// framing is what RTU and Modbus TCP do differently.
type framing interface {
	transport.Framer

	opened(transport.Info)
	// silence is how long the line must have been quiet before a request.
	silence() time.Duration
	// request makes the frame to send, valid until the next one, and prepares
	// for its reply.
	request(unit byte, r Request) []byte
	// reply takes a received frame apart.
	reply(msg []byte) (unit byte, pdu []byte, err error)
	// numbered says that a reply carries the number of its request, so that a
	// late one can't be taken for another.
	numbered() bool
	// unfinished says that bytes have come that are no whole frame.
	unfinished() bool
	// lastByte is when something was received last.
	lastByte() time.Time
}

// ErrUnknown marks the failure of a request that would have changed something:
// it may have been carried out or not.
var ErrUnknown = errors.New("outcome unknown")

// Link is a line with Modbus devices on it. It implements scheduler.Link.
// Open, Close, Do and the steps of its Polls are for one goroutine, the lane's;
// Counters may be called at any time.
type Link struct {
	dialer transport.Dialer
	cfg    LinkConfig
	log    *slog.Logger

	conn    transport.Conn // nil while closed
	framing framing        // of conn
	opens   int            // how often the line was opened
	guard   guard
	counted counters
}

var _ scheduler.Link = (*Link)(nil)

// NewLink makes a link; it opens nothing. cfg.Framing must be set, see
// LinkConfig.On.
func NewLink(dialer transport.Dialer, cfg LinkConfig, log *slog.Logger) (*Link, error) {
	if cfg.Framing != FramingRTU && cfg.Framing != FramingTCP {
		return nil, fmt.Errorf("modbus: %s: framing %q: it must be %q or %q", dialer.Endpoint(), cfg.Framing, FramingRTU, FramingTCP)
	}
	return &Link{dialer: dialer, cfg: cfg, log: log, guard: guard{lasts: cfg.LateReplyGuard}}, nil
}

// Open makes one attempt to open the line.
func (l *Link) Open(ctx context.Context) error {
	var f framing = new(rtu)
	if l.cfg.Framing == FramingTCP {
		f = new(mbap)
	}
	conn, err := l.dialer.Dial(ctx, f)
	if err != nil {
		return fmt.Errorf("modbus: %w", err)
	}
	f.opened(conn.Info())
	l.conn, l.framing = transport.Within(conn, f), f
	l.opens++
	return nil
}

// Lost returns what the line itself tells. Where that is nothing, the next
// request finds out: a master that asks nothing hears nothing.
func (l *Link) Lost() <-chan struct{} {
	if l.conn == nil {
		return nil
	}
	return l.conn.Info().Lost
}

// Close closes the line.
func (l *Link) Close() error {
	conn := l.conn
	if conn == nil {
		return nil
	}
	l.conn = nil
	return conn.Close()
}

// Do asks r of a unit, once, and returns the values of the reply. The link
// never repeats a request by itself. Errors:
//
//	Exception              the unit says no; nothing else has gone wrong
//	*scheduler.NotYet      not sent: a late reply could be taken for this one's
//	os.ErrDeadlineExceeded no reply before ctx's deadline
//	ctx.Err()              ctx ended before r was sent, or was cancelled
//	transport.ErrLost      the line is gone, or of no further use
//	net.ErrClosed          the link is not open
//	ErrUnknown             with one of the above: r may have been carried out
func (l *Link) Do(ctx context.Context, unit int, r Request) ([]byte, error) {
	if lowest, highest := unitRange(l.cfg.Framing); unit < lowest || unit > highest {
		return nil, fmt.Errorf("modbus: %s: unit %d: %d to %d can be asked", l.dialer.Endpoint(), unit, lowest, highest)
	}
	data, err := l.transact(ctx, byte(unit), r)
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), data...), nil
}

// transact is Do without a copy: the values are good until the next one.
func (l *Link) transact(ctx context.Context, unit byte, r Request) ([]byte, error) {
	conn := l.conn
	if conn == nil {
		return nil, l.failed("asking", unit, r, net.ErrClosed)
	}
	if until := l.guard.until(unit, r, time.Now()); !until.IsZero() {
		return nil, &scheduler.NotYet{Until: until}
	}
	defer interrupt(ctx, conn)()
	if err := l.quiet(ctx, conn, unit); err != nil {
		return nil, l.failed("waiting for a quiet line before asking", unit, r, err)
	}
	deadline, _ := ctx.Deadline()
	if err := errors.Join(conn.SetReadDeadline(deadline), conn.SetWriteDeadline(deadline), ctx.Err()); err != nil {
		return nil, l.failed("asking", unit, r, err)
	}
	l.counted.requests.Add(1)
	if err := conn.Write(l.framing.request(unit, r)); err != nil {
		return nil, l.failed("asking", unit, r, r.unknown(unusable(err)))
	}
	data, err := l.await(ctx, conn, unit, r)
	var refused Exception
	switch {
	case err == nil:
		l.counted.replies.Add(1)
		return data, nil
	case errors.As(err, &refused):
		l.counted.replies.Add(1)
		l.counted.exceptions.Add(1)
		if refused == GatewayNoAnswer {
			// The gateway was there, but the device behind it is silent.
			err = fmt.Errorf("%w: %w", r.unknown(os.ErrDeadlineExceeded), refused)
		}
		return nil, l.failed("asking", unit, r, err)
	}
	return nil, l.failed("waiting for the reply of", unit, r, r.unknown(err))
}

// await reads until the reply to r has come or ctx has ended.
func (l *Link) await(ctx context.Context, conn transport.Conn, unit byte, r Request) ([]byte, error) {
	var last error // the last one that was discarded
	for {
		msg, err := conn.Read()
		switch {
		case err == nil:
			data, err := l.check(msg, unit, r)
			var why discard
			if !errors.As(err, &why) {
				return data, err
			}
			l.discarded(why, unit)
			last = why
		case errors.Is(err, transport.ErrFrame), errors.Is(err, transport.ErrTooLarge):
			if l.framing.numbered() && conn.Info().MaxMessage == 0 {
				return nil, transport.Lost(err) // the next frame can't be found
			}
			l.discarded(badFrame, unit)
			last = badFrame
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, l.timedOut(ctx, unit, r, last)
		default:
			return nil, err
		}
	}
}

// check takes a received frame for the reply to r, or says why it is not.
func (l *Link) check(msg []byte, unit byte, r Request) ([]byte, error) {
	from, pdu, err := l.framing.reply(msg)
	if err != nil {
		return nil, err
	}
	if from != unit {
		return nil, wrongUnit
	}
	data, err := r.Reply(pdu)
	var refused Exception
	if errors.As(err, &refused) && l.guard.mayRefuse(unit, r, time.Now()) {
		return nil, late
	}
	return data, err
}

// timedOut is the error of r when its time is over; last is what was discarded
// last, if anything.
func (l *Link) timedOut(ctx context.Context, unit byte, r Request, last error) error {
	if !l.framing.numbered() {
		l.guard.add(unit, r, time.Now())
	}
	if l.framing.unfinished() {
		l.discarded(short, unit)
		last = short
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	l.counted.timeouts.Add(1)
	if last != nil {
		return fmt.Errorf("%w (%w was discarded)", os.ErrDeadlineExceeded, last)
	}
	return os.ErrDeadlineExceeded
}

// quiet waits for the silence that must precede a request and drops what has
// come meanwhile. A line that is never quiet is spoken on after half the time
// that is left: an undriven pair may make noise without end, and a request ends
// that.
func (l *Link) quiet(ctx context.Context, conn transport.Conn, unit byte) error {
	if l.framing.numbered() {
		return nil // a late reply is told by its number, and half of one must not be dropped
	}
	now := time.Now()
	patience := now.Add(time.Minute)
	if deadline, ok := ctx.Deadline(); ok {
		patience = now.Add(deadline.Sub(now) / 2)
	}
	for silence := l.framing.silence(); silence > 0; now = time.Now() {
		began := now
		if err := conn.SetReadDeadline(began.Add(silence)); err != nil {
			return err
		}
		_, err := conn.Read()
		switch {
		case err == nil:
			l.discarded(late, unit)
		case errors.Is(err, transport.ErrFrame), errors.Is(err, transport.ErrTooLarge):
			l.discarded(badFrame, unit)
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !l.framing.lastByte().After(began) {
				return conn.Discard()
			}
		default:
			return err
		}
		if ctx.Err() != nil || time.Now().After(patience) {
			break
		}
	}
	return conn.Discard()
}

// failed wraps an error once, for whoever reads the log. One of the line comes
// first: it happened to whatever was going on, and names the endpoint itself.
func (l *Link) failed(doing string, unit byte, r Request, err error) error {
	if errors.Is(err, transport.ErrLost) {
		return fmt.Errorf("modbus: %w, while %s unit %d (%v)", err, doing, unit, r)
	}
	return fmt.Errorf("modbus: %s unit %d on %s (%v): %w", doing, unit, l.dialer.Endpoint(), r, err)
}

// unknown marks err when r may have changed something.
func (r Request) unknown(err error) error {
	if r.changes() {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// unusable is a failed Write's error as one of a class that makes the lane open
// the line again: after it the connection is of no further use.
func unusable(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, transport.ErrLost) {
		return err
	}
	return transport.Lost(err)
}

// interrupt ends reads and writes on conn when ctx ends, until the returned
// function is called.
func interrupt(ctx context.Context, conn transport.Conn) (release func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		past := time.Unix(1, 0)
		_ = conn.SetReadDeadline(past)
		_ = conn.SetWriteDeadline(past)
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}
