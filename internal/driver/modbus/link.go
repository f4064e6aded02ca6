// Package modbus is a Modbus master: RTU on a serial line or through a gateway
// that passes RTU frames over TCP, and Modbus TCP.
//
// A Link is the line. It carries one transaction at a time, or with Modbus TCP
// as many as configured. A Poll reads the points of one device, in as few
// requests as the device's limits allow, and makes a record of them. A Command
// writes a point or reads some once. A scheduler.Lane owns the time: it opens
// the Link and says when a Poll or a Command takes its next step.
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

// line is an open line and what is under way on it.
type line interface {
	// transact asks r of a station and returns the data of its reply, which are
	// good until the next transaction; its errors are those of Link.Do. It fills in
	// t as a Task's Step does.
	transact(ctx context.Context, t *scheduler.Turn, s station, r Request) ([]byte, error)
	lost() <-chan struct{}
	close() error
}

// station is a device as a line sees it.
type station struct {
	unit byte
	all  bool          // unit is everyone, and nobody answers
	gap  time.Duration // see DeviceConfig.Gap
}

// everyone is the unit of a request that all slaves of a line carry out and none
// answers (Modbus over Serial Line V1.02, section 2.1).
const everyone = 0

// Link is a line with Modbus devices on it. It implements scheduler.Link.
//
// Open and Close are for one goroutine, the lane's. Do and the steps of Polls
// and Commands are for one at a time, unless LinkConfig.Transactions says that
// there may be several; none may be under way during Open and Close. Counters
// may be called at any time.
type Link struct {
	dialer transport.Dialer
	cfg    LinkConfig
	log    *slog.Logger

	line    line  // nil while closed
	opens   int   // how often the line was opened
	guard   guard // only with one transaction at a time
	counted counters
}

var _ scheduler.Link = (*Link)(nil)

// NewLink makes a link; it opens nothing. cfg.Framing must be set, see
// LinkConfig.On.
func NewLink(dialer transport.Dialer, cfg LinkConfig, log *slog.Logger) (*Link, error) {
	switch {
	case cfg.Framing != FramingRTU && cfg.Framing != FramingTCP:
		return nil, fmt.Errorf("modbus: %s: framing %q: it must be %q or %q", dialer.Endpoint(), cfg.Framing, FramingRTU, FramingTCP)
	case cfg.Framing == FramingRTU && cfg.Transactions > 1:
		return nil, fmt.Errorf("modbus: %s: %d transactions at a time: RTU carries one, only Modbus TCP numbers them", dialer.Endpoint(), cfg.Transactions)
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
	conn = transport.Within(conn, f)
	if l.cfg.Transactions > 1 {
		l.line = newPipeline(l, conn)
	} else {
		l.line = newDirect(l, conn, f)
	}
	l.opens++
	return nil
}

// Lost returns what the line itself tells. Where that is nothing, the next
// request finds out: a master that asks nothing hears nothing.
func (l *Link) Lost() <-chan struct{} {
	if l.line == nil {
		return nil
	}
	return l.line.lost()
}

// Close closes the line.
func (l *Link) Close() error {
	line := l.line
	if line == nil {
		return nil
	}
	l.line = nil
	return line.close()
}

// Do asks r of a unit, once, and returns the values of the reply. The link
// never repeats a request by itself. Errors:
//
//	Exception              the unit says no; nothing else has gone wrong
//	*scheduler.NotYet      not sent: a late reply could be taken for this one's
//	os.ErrDeadlineExceeded no reply before ctx's deadline, or within a minute
//	context.Canceled       ctx was cancelled
//	transport.ErrLost      the line is gone, or of no further use
//	net.ErrClosed          the link is not open
//
// After all but the first two, a request that writes may have been carried out.
func (l *Link) Do(ctx context.Context, unit int, r Request) ([]byte, error) {
	if lowest, highest := unitRange(l.cfg.Framing); unit < lowest || unit > highest {
		return nil, fmt.Errorf("modbus: %s: unit %d: %d to %d can be asked", l.dialer.Endpoint(), unit, lowest, highest)
	}
	turn := scheduler.Turn{Timeout: time.Minute}
	if deadline, ok := ctx.Deadline(); ok {
		turn.Timeout = max(time.Until(deadline), 1)
	}
	data, err := l.transact(ctx, &turn, station{unit: byte(unit)}, r)
	if errors.Is(err, context.DeadlineExceeded) {
		l.counted.timeouts.Add(1)
		return nil, l.failed(station{unit: byte(unit)}, r, &noAnswer{waited: turn.Timeout})
	}
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), data...), nil
}

// transact is Do for a device's turn. The values are good until the next one.
func (l *Link) transact(ctx context.Context, t *scheduler.Turn, s station, r Request) ([]byte, error) {
	if l.line == nil {
		return nil, l.failed(s, r, net.ErrClosed)
	}
	data, err := l.line.transact(ctx, t, s, r)
	if t.Sent {
		l.counted.requests.Add(1)
	}
	if err != nil {
		return nil, l.unanswered(s, r, err)
	}
	if !s.all {
		l.counted.replies.Add(1)
	}
	return data, nil
}

// unanswered counts why a transaction has brought no values.
func (l *Link) unanswered(s station, r Request, err error) error {
	if _, early := errors.AsType[*scheduler.NotYet](err); early || errors.Is(err, scheduler.ErrExpired) {
		return err // nothing was asked
	}
	if _, silent := errors.AsType[*noAnswer](err); silent {
		l.counted.timeouts.Add(1)
	}
	if refused, ok := errors.AsType[Exception](err); ok {
		l.counted.replies.Add(1)
		l.counted.exceptions.Add(1)
		if refused == GatewayNoAnswer {
			// The gateway was there, but the device behind it is silent.
			err = fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, refused)
		}
	}
	return l.failed(s, r, err)
}

// failed wraps an error once, for whoever reads the log. One of the line comes
// first: it happened to whatever was going on, and names the endpoint itself.
func (l *Link) failed(s station, r Request, err error) error {
	if errors.Is(err, transport.ErrLost) {
		return fmt.Errorf("modbus: %w, while asking unit %d (%v)", err, s.unit, r)
	}
	return fmt.Errorf("modbus: asking unit %d on %s (%v): %w", s.unit, l.dialer.Endpoint(), r, err)
}

// noAnswer is a time-out. It is os.ErrDeadlineExceeded.
type noAnswer struct {
	waited time.Duration
	last   error // what was discarded last meanwhile; nil for nothing
}

func (e *noAnswer) Error() string {
	if e.last != nil {
		return fmt.Sprintf("no answer within %v (%v was discarded)", e.waited.Round(time.Millisecond), e.last)
	}
	return fmt.Sprintf("no answer within %v", e.waited.Round(time.Millisecond))
}

func (e *noAnswer) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// unusable is a failed Write's error as one of a class that makes the lane open
// the line again: after it the connection is of no further use.
func unusable(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, transport.ErrLost) {
		return err
	}
	return transport.Lost(err)
}
