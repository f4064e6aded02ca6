// Package text reads devices that speak by themselves, in lines: scales,
// meters, GPS receivers, bar-code readers.
//
// A line ends with a delimiter or with a silence. It is read by named regular
// expressions, as CSV columns or as an NMEA 0183 sentence, and becomes a record.
// A line that none of them understands is not lost: it becomes a record of
// quality bad with the line as its payload, in the configured stream, and is
// counted. So does an NMEA sentence whose checksum is wrong.
package text

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// ContentType of a line that is kept as it came.
const ContentType = "text/plain"

// Sink takes the records. What the record points to is valid until Deliver
// returns. An error means that the record is lost, and that the sink has counted
// it; the driver goes on with the next line.
type Sink interface {
	Deliver(ctx context.Context, r record.Record) error
}

// Counters are what a link has seen since it was made.
type Counters struct {
	Lines         uint64 `json:"lines"`          // all but empty ones
	NotUnderstood uint64 `json:"not_understood"` // of these, kept as they came
	TooLong       uint64 `json:"too_long"`       // dropped, not among Lines
}

// Link is a line with one device on it. It implements scheduler.Link: Open, Lost
// and Close are for one goroutine, the lane's; Counters and Silent may be called
// at any time.
type Link struct {
	dialer transport.Dialer
	device string
	cfg    Config
	parser parser
	sink   Sink
	clock  func() record.Stamp
	log    *slog.Logger
	made   time.Time

	open    *reader      // nil while closed
	heard   atomic.Int64 // since made, when the device was heard last, or the line was opened; negative while it is closed
	points  []record.Point
	counted struct{ lines, notUnderstood, tooLong atomic.Uint64 }
}

var _ scheduler.Link = (*Link)(nil)

// reader is the goroutine that reads an open line.
type reader struct {
	conn   transport.Conn
	cancel context.CancelFunc
	ended  chan struct{}
}

// NewLink makes a link; it opens nothing. cfg has its defaults and has been
// validated; what is wrong nevertheless is an error.
func NewLink(dialer transport.Dialer, device string, cfg Config, sink Sink, clock func() record.Stamp, log *slog.Logger) (*Link, error) {
	if cfg.Delimiter == "" && cfg.Idle == 0 {
		return nil, fmt.Errorf("device %s: text: neither delimiter nor idle says where a line ends", device)
	}
	p, err := newParser(&cfg)
	if err != nil {
		return nil, fmt.Errorf("device %s: text: %w", device, err)
	}
	l := &Link{dialer: dialer, device: device, cfg: cfg, parser: p, sink: sink, clock: clock, log: log.With("device", device), made: time.Now()}
	l.heard.Store(-1)
	return l, nil
}

// Open makes one attempt to open the line and begins to read it.
func (l *Link) Open(ctx context.Context) error {
	f := newFramer(&l.cfg)
	conn, err := l.dialer.Dial(ctx, f)
	if err != nil {
		return fmt.Errorf("text: %w", err)
	}
	f.whole = conn.Info().MaxMessage > 0
	conn = transport.Within(conn, f)
	reading, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &reader{conn: conn, cancel: cancel, ended: make(chan struct{})}
	l.open = r
	l.hear()
	go func() {
		defer close(r.ended)
		l.read(reading, conn)
	}()
	return nil
}

// Lost returns a channel that is closed when the line has gone.
func (l *Link) Lost() <-chan struct{} {
	if l.open == nil {
		return nil
	}
	return l.open.ended
}

// Close closes the line and returns when nothing of it runs any more.
func (l *Link) Close() error {
	r := l.open
	if r == nil {
		return nil
	}
	l.open = nil
	r.cancel()
	err := r.conn.Close()
	<-r.ended
	l.heard.Store(-1)
	return err
}

func (l *Link) hear() { l.heard.Store(int64(time.Since(l.made))) }

// Silent tells whether the device has said nothing for longer than
// Config.Silence, and since when: its last line, or when the line was opened. A
// device on a line that is closed can't be heard, and does not count as silent.
// It may be called at any time.
func (l *Link) Silent() (since time.Time, silent bool) {
	heard := time.Duration(l.heard.Load())
	if l.cfg.Silence == 0 || heard < 0 || time.Since(l.made)-heard <= l.cfg.Silence {
		return time.Time{}, false
	}
	return l.made.Add(heard), true
}

// Counters may be called at any time.
func (l *Link) Counters() Counters {
	return Counters{
		Lines:         l.counted.lines.Load(),
		NotUnderstood: l.counted.notUnderstood.Load(),
		TooLong:       l.counted.tooLong.Load(),
	}
}

// read takes lines until there is none to come.
func (l *Link) read(ctx context.Context, conn transport.Conn) {
	for {
		line, err := conn.Read()
		switch {
		case err == nil:
			l.hear()
			l.take(ctx, line)
		case errors.Is(err, transport.ErrTooLarge), errors.Is(err, transport.ErrFrame):
			l.hear()
			l.counted.tooLong.Add(1)
			l.log.Debug("text: dropped a line", "endpoint", l.dialer.Endpoint(), "error", err)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			l.log.Debug("text: the line is gone", "endpoint", l.dialer.Endpoint(), "error", err)
			return
		}
	}
}

// take makes a record of a line. Empty ones say nothing: instruments put them
// between others.
func (l *Link) take(ctx context.Context, line []byte) {
	if len(line) == 0 {
		return
	}
	l.counted.lines.Add(1)
	r := record.Record{Device: l.device}
	r.At(l.clock())
	r.Time = r.Time.UTC()
	var understood bool
	r.Stream, l.points, understood = l.parser.parse(line, l.points[:0])
	switch {
	case !understood:
		l.counted.notUnderstood.Add(1)
		r.Stream, r.Quality = l.cfg.Stream, record.Bad
		r.Payload, r.ContentType = line, ContentType
	case len(l.points) == 0: // that the line came is all it says
		r.Payload, r.ContentType = line, ContentType
	default:
		r.Points, r.Quality = l.points, record.Summarise(l.points)
	}
	_ = l.sink.Deliver(ctx, r) // the sink counts what it could not take
}
