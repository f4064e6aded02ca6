package modbus

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// direct is an open line with one transaction at a time, which whoever asks
// sends and waits for himself.
type direct struct {
	link     *Link
	conn     transport.Conn
	framing  framing
	charTime time.Duration
	gone     <-chan struct{} // see transport.Info.Lost
	stream   bool            // nothing but the framing tells where a message ends
	watch    watch
	active   time.Time     // when the last character was seen, or had left
	listened time.Time     // when the line was listened to last
	deferred map[byte]bool // units that were told to come back for their gap; nil for none
}

var _ line = (*direct)(nil)

func newDirect(link *Link, conn transport.Conn, f framing) *direct {
	info := conn.Info()
	return &direct{
		link: link, conn: conn, framing: f, charTime: info.CharTime, gone: info.Lost, stream: info.MaxMessage == 0,
		active: time.Now(),
		watch: watch{interrupt: func() {
			past := time.Unix(1, 0)
			_ = conn.SetReadDeadline(past)
			_ = conn.SetWriteDeadline(past)
		}},
	}
}

func (d *direct) lost() <-chan struct{} { return d.gone }

func (d *direct) close() error {
	d.watch.leave()
	return d.conn.Close()
}

// transact implements line.
func (d *direct) transact(ctx context.Context, t *scheduler.Turn, s station, r Request) ([]byte, error) {
	numbered := d.framing.numbered()
	if !numbered {
		if until := d.link.guard.until(s.unit, r, time.Now()); !until.IsZero() {
			return nil, &scheduler.NotYet{Until: until}
		}
	}
	if until := d.rested(s); !until.IsZero() {
		return nil, &scheduler.NotYet{Until: until}
	}
	if _, bounded := ctx.Deadline(); bounded || t.Timeout+s.gap > shortWait {
		d.watch.follow(ctx)
	} else {
		d.watch.leave() // the end of an earlier context must not interrupt this one
	}
	if err := d.hush(ctx, t, s); err != nil {
		return nil, err
	}
	sent, err := d.send(ctx, t, d.framing.request(s.unit, r))
	if err != nil {
		return nil, err
	}
	delete(d.deferred, s.unit)
	if s.all {
		err = d.listen(ctx, t, s.unit, sent.Add(d.link.cfg.TurnaroundDelay))
		t.Unanswered = err == nil
		return nil, err
	}
	return d.await(ctx, t, exchange{unit: s.unit, request: r, sent: sent})
}

// longestWrite is how much longer than its characters take a Write may last. No
// buffer of a system takes as long to take a frame, unless the peer reads nothing.
const longestWrite = time.Second

// shortWait is not worth interrupting when a context is cancelled: to follow it takes
// memory, and there may be ten thousand lines. A lane that is stopped gives a step
// longer than that.
const shortWait = 2 * time.Second

// send returns when the last character had left: not before the characters can
// have, though some adapters say so. A command whose time is over by now is not
// sent.
func (d *direct) send(ctx context.Context, t *scheduler.Turn, frame []byte) (time.Time, error) {
	began := time.Now()
	lasts := d.lasts(len(frame))
	err := d.conn.SetWriteDeadline(began.Add(2*lasts + max(t.Timeout, longestWrite)))
	if err := errors.Join(err, ctx.Err()); err != nil {
		return time.Time{}, err
	}
	if expired(t) {
		return time.Time{}, scheduler.ErrExpired
	}
	t.Sent = true
	if err := d.conn.Write(frame); err != nil {
		if ctx.Err() != nil {
			return time.Time{}, ctx.Err()
		}
		return time.Time{}, unusable(err)
	}
	d.active = later(time.Now(), began.Add(lasts))
	return d.active, nil
}

// expired tells whether a command is not to be sent any more.
func expired(t *scheduler.Turn) bool {
	return !t.Deadline.IsZero() && !time.Now().Before(t.Deadline)
}

// lasts is how long so many characters take.
func (d *direct) lasts(characters int) time.Duration {
	return time.Duration(characters) * d.charTime
}

// exchange is a request that was sent and is waited for.
type exchange struct {
	unit    byte
	request Request
	sent    time.Time
	garbled bool  // something came that may have been the reply
	last    error // what was discarded last; nil for nothing
}

// await reads until the reply has come, its time is over or ctx has ended.
func (d *direct) await(ctx context.Context, t *scheduler.Turn, e exchange) ([]byte, error) {
	deadline := e.sent.Add(t.Timeout + d.lasts(inRTU(e.request.size)))
	if err := d.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		msg, err := d.conn.Read()
		switch {
		case err == nil:
			d.active = time.Now()
			data, err := d.check(msg, e.unit, e.request)
			why, vain := errors.AsType[discard](err)
			if !vain {
				if !d.link.guard.mayAnswer(e.unit, e.request) {
					t.Took = max(d.active.Sub(e.sent)-d.lasts(len(msg)), time.Microsecond)
				}
				return data, err
			}
			d.discard(t, why, e.unit)
			e.last = why
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, d.silent(ctx, t, e)
		default:
			if err := d.bad(t, e.unit, err); err != nil {
				return nil, err
			}
			e.garbled, e.last = true, badFrame
		}
		if !time.Now().Before(deadline) { // a line that babbles for ever
			break
		}
	}
	return nil, d.silent(ctx, t, e)
}

// check takes a received frame for the reply to r, or says why it is not.
func (d *direct) check(msg []byte, unit byte, r Request) ([]byte, error) {
	from, pdu, err := d.framing.reply(msg)
	if err != nil {
		return nil, err
	}
	if from != unit {
		d.link.guard.came(from, pdu)
		return nil, wrongUnit
	}
	data, err := r.Reply(pdu)
	if _, vain := errors.AsType[discard](err); vain {
		d.link.guard.came(from, pdu)
	}
	if _, refused := errors.AsType[Exception](err); refused && d.link.guard.mayRefuse(unit, r, time.Now()) {
		return nil, late
	}
	return data, err
}

// silent is the error of a request whose time is over.
func (d *direct) silent(ctx context.Context, t *scheduler.Turn, e exchange) error {
	d.listened = time.Now()
	if d.framing.unfinished() {
		d.discard(t, short, e.unit)
		e.garbled, e.last = true, short
	}
	if !d.framing.numbered() {
		d.link.guard.add(e.unit, e.request, e.sent, t.Timeout, e.garbled, time.Now())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &noAnswer{waited: t.Timeout, last: e.last}
}

// discard counts what was received in vain.
func (d *direct) discard(t *scheduler.Turn, why discard, unit byte) {
	if why == badFrame || why == short {
		t.Garbled++
	} else {
		t.Foreign++
	}
	d.link.discarded(why, unit)
}

// bad counts a frame that is none, or fails with what the line can't go on after.
func (d *direct) bad(t *scheduler.Turn, unit byte, err error) error {
	if !errors.Is(err, transport.ErrFrame) && !errors.Is(err, transport.ErrTooLarge) {
		return err
	}
	if d.framing.numbered() && d.stream {
		return transport.Lost(err) // the next frame can't be found
	}
	d.discard(t, badFrame, unit)
	return nil
}
