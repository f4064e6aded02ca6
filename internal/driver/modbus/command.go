package modbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// Command writes a point of a device or reads some, once. It implements
// scheduler.Task: the lane of its Link does it as a Job. Make it with a Device.
type Command struct {
	reading // what is read, or read back

	write    *write // nil: it only reads
	readBack bool
	written  bool

	answer record.Record
}

// write is what a Command writes.
type write struct {
	point   *point
	request Request
	raw     []byte // see point.encode
	value   record.Value
}

var _ scheduler.Task = (*Command)(nil)

// Begin implements scheduler.Task.
func (c *Command) Begin(time.Time) {
	c.begin()
	c.written = false
}

// Step implements scheduler.Task. A write is one transaction; reading it back is
// another, which does not count as sent: it may be repeated.
func (c *Command) Step(ctx context.Context, t *scheduler.Turn) (more bool, err error) {
	switch {
	case c.write == nil:
		more, err = c.step(ctx, t)
		if err == nil && !more {
			err = c.unread()
		}
		return more, err
	case !c.written:
		return c.send(ctx, t)
	}
	err = c.check(ctx, t)
	t.Sent = false
	return false, err
}

// unread is why nothing could be read, if that is so.
func (c *Command) unread() error {
	if quality(c.result) != record.Bad {
		return nil
	}
	reason := c.result[0].Bad
	if c.points[0].refused != 0 {
		reason = c.points[0].refused.Error()
	}
	return fmt.Errorf("nothing could be read from %s: %s", c.device, reason)
}

// send writes the point. When the device has said no, that is all; when it is
// still at it, nobody will know.
func (c *Command) send(ctx context.Context, t *scheduler.Turn) (more bool, err error) {
	_, err = c.link.transact(ctx, t, c.station, c.write.request)
	refused, answered := errors.AsType[Exception](err)
	switch {
	case err == nil:
		c.written = true
		return c.readBack, nil
	case !answered || refused == GatewayNoAnswer:
		return false, err
	case refused == Acknowledge:
		return false, fmt.Errorf("%w: %s has accepted the write and is still at it: %w", scheduler.ErrUnknown, c.device, err)
	case refused == IllegalFunction && c.write.request.Function() == MaskWriteRegister:
		return false, fmt.Errorf("%s can't change single bits of a register (it lacks function %d): %w", c.device, MaskWriteRegister, err)
	}
	return false, fmt.Errorf("%s refuses to write %s: %w", c.device, c.write.point.label, err)
}

// check reads the point back.
func (c *Command) check(ctx context.Context, t *scheduler.Turn) error {
	read, w := c.reads[0], c.write
	data, err := c.link.transact(ctx, t, c.station, read.request)
	if err != nil {
		if _, early := errors.AsType[*scheduler.NotYet](err); early {
			return err
		}
		return fmt.Errorf("%s was written, as the device has confirmed, but not read back: %w", w.point.label, err)
	}
	value, bad := w.point.decode(data, read.first)
	c.set(w.point, value, bad)
	c.next++
	switch holds := w.point.holds(w.raw, data, read.first); {
	case holds:
		return nil
	case bad != "":
		return fmt.Errorf("%s was written as %s, as the device has confirmed, and read back as no value (%s)", w.point.label, inWords(w.value), bad)
	}
	return fmt.Errorf("%s was written as %s, as the device has confirmed, and read back as %s", w.point.label, inWords(w.value), inWords(value))
}

// End implements scheduler.Task.
func (c *Command) End(err error) (work func(ctx context.Context)) {
	c.end(err)
	c.answer = record.Record{Device: c.device, Time: time.Now().UTC()}
	if c.write == nil || c.readBack && c.written {
		c.answer.Points, c.answer.Quality = c.result, quality(c.result)
	}
	return nil
}

// Answer is what the device said: the points that were read, or the one that was
// read back. It is valid after End, and has no points when nothing was to be
// read.
func (c *Command) Answer() record.Record { return c.answer }
