package modbus

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
)

// peek is how long a line that nobody has listened to for a while is listened to
// before it is taken for quiet: characters that came meanwhile are heard then.
const peek = 250 * time.Microsecond

// longHush is what a line is not held for, as long as others may use it meanwhile.
const longHush = 5 * time.Millisecond

// rested is when s is to be asked instead, because of its gap; the zero time where
// it may be asked at once. It is put off once before each request: on a line that others keep busy there
// would never be enough silence, so that the next time it is waited for.
func (d *direct) rested(s station) time.Time {
	until := d.lastCharacter().Add(d.framing.silence() + s.gap)
	if s.gap == 0 || d.deferred[s.unit] || time.Until(until) <= longHush {
		return time.Time{}
	}
	if d.deferred == nil {
		d.deferred = make(map[byte]bool)
	}
	d.deferred[s.unit] = true
	return until.Add(-peek) // so that it need not listen beyond until
}

// hush waits for the silence that must precede a request, counted from the last
// character on the line, and drops what has come meanwhile. A line that is never
// quiet is spoken on after half the time-out: an undriven pair may make noise
// without end, and a request ends that. For a command it waits until the
// deadline at most.
func (d *direct) hush(ctx context.Context, t *scheduler.Turn, s station) error {
	silence := d.framing.silence() + s.gap
	if d.framing.numbered() {
		// A late reply is told by its number, and half of one must not be dropped.
		if until := d.active.Add(s.gap); s.gap > 0 && time.Now().Before(until) {
			return d.listen(ctx, t, s.unit, inTime(t, until))
		}
		return ctx.Err()
	}
	now := time.Now()
	patience := inTime(t, now.Add(silence+t.Timeout/2))
	for silence > 0 && now.Before(patience) {
		since := d.lastCharacter()
		quiet := since.Add(silence)
		if !now.Before(quiet) && now.Sub(d.listened) < peek {
			break
		}
		if err := d.listen(ctx, t, s.unit, inTime(t, later(quiet, now.Add(peek)))); err != nil {
			return err
		}
		if !d.lastCharacter().After(since) {
			break
		}
		now = time.Now()
	}
	return errors.Join(d.conn.Discard(), ctx.Err())
}

// inTime is until, or a command's deadline if that is earlier.
func inTime(t *scheduler.Turn, until time.Time) time.Time {
	if !t.Deadline.IsZero() && t.Deadline.Before(until) {
		return t.Deadline
	}
	return until
}

// lastCharacter is when the last one was seen on the line, or had left.
func (d *direct) lastCharacter() time.Time { return later(d.active, d.framing.lastByte()) }

// listen discards what comes until a time.
func (d *direct) listen(ctx context.Context, t *scheduler.Turn, unit byte, until time.Time) error {
	if err := errors.Join(d.conn.SetReadDeadline(until), ctx.Err()); err != nil {
		return err
	}
	defer func() { d.listened = time.Now() }()
	for {
		msg, err := d.conn.Read()
		switch {
		case err == nil:
			d.active = time.Now()
			d.overheard(t, msg, unit)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ctx.Err()
		default:
			if err := d.bad(t, unit, err); err != nil {
				return err
			}
		}
		if !time.Now().Before(until) {
			return ctx.Err()
		}
	}
}

// overheard counts a frame that came while nothing was waited for.
func (d *direct) overheard(t *scheduler.Turn, msg []byte, unit byte) {
	from, pdu, err := d.framing.reply(msg)
	if why, vain := errors.AsType[discard](err); vain {
		d.discard(t, why, unit)
		return
	}
	d.link.guard.came(from, pdu)
	d.discard(t, late, unit)
}
