package modbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// Sink takes the records that polls make.
type Sink interface {
	// Offer takes r at once, or says that there is no room for it. When it returns,
	// r's Points are the poll's again.
	Offer(r record.Record) bool
	// Deliver returns when r is accepted, and fails when ctx ends before.
	Deliver(ctx context.Context, r record.Record) error
}

// PollConfig is what a Poll reads, and of whom.
type PollConfig struct {
	ID     string // the device's, which the records carry
	Name   string // the poll's: the stream of its records
	Device DeviceConfig
	Points []PointConfig
}

// Poll reads the points of one device and makes one record of each round. It
// implements scheduler.Task; the lane of its Link calls it.
//
// A point that can't be read has its reason in the record, such as timeout or
// exception-2.
type Poll struct {
	reading

	name string
	sink Sink
	now  func() record.Stamp

	at record.Stamp // of the round's last answer, zero before it
}

var _ scheduler.Task = (*Poll)(nil)

// Poll makes a poll of the link, which keeps cfg.Points. It fails when
// ValidatePoints or DeviceConfig.Validate find something wrong.
func (l *Link) Poll(cfg PollConfig, sink Sink, now func() record.Stamp) (*Poll, error) {
	p := &Poll{name: cfg.Name, sink: sink, now: now}
	points, err := l.check(cfg.Device, cfg.Points)
	if err == nil {
		p.reading, err = newReading(l, cfg.ID, cfg.Device, points)
	}
	if err == nil && len(points) == 0 {
		err = errors.New("it has no points")
	}
	if err != nil {
		return nil, fmt.Errorf("modbus: poll %s of device %s: %w", cfg.Name, cfg.ID, err)
	}
	return p, nil
}

// check returns the points of a device, or every mistake in them.
func (l *Link) check(device DeviceConfig, configs []PointConfig) ([]*point, error) {
	var problems []error
	device.Validate(l.cfg.Framing, func(key, problem string) {
		problems = append(problems, fmt.Errorf("%s: %s", key, problem))
	})
	ValidatePoints(device, configs, func(i int, key, problem string) {
		problems = append(problems, fmt.Errorf("points[%d].%s: %s", i, key, problem))
	})
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return pointsOf(configs)
}

// pointsOf are points in the order of their configuration, which they keep.
func pointsOf(configs []PointConfig) ([]*point, error) {
	points := make([]point, len(configs))
	list := make([]*point, len(configs))
	for i := range configs {
		c := &configs[i]
		table, first, err := parseAddress(c.Address)
		if err != nil {
			return nil, err
		}
		points[i] = c.point(table, first)
		points[i].place = i
		list[i] = &points[i]
	}
	return list, nil
}

// Begin implements scheduler.Task.
func (p *Poll) Begin(time.Time) {
	p.begin()
	p.at = record.Stamp{}
}

// Step implements scheduler.Task: one read.
func (p *Poll) Step(ctx context.Context, t *scheduler.Turn) (more bool, err error) {
	more, err = p.step(ctx, t)
	if err == nil {
		p.at = p.now()
	}
	return more, err
}

// End implements scheduler.Task: it makes a record of the round.
func (p *Poll) End(err error) (work func(ctx context.Context)) {
	if err != nil || p.at.Time.IsZero() {
		p.at = p.now()
	}
	p.end(err)
	r := record.Record{
		Device: p.device, Stream: p.name,
		Quality: quality(p.result), Points: p.result,
	}
	r.At(p.at)
	if p.sink.Offer(r) {
		return nil
	}
	r.Points = slices.Clone(r.Points) // the next round may begin before it is delivered
	return p.deliver(r)
}

// deliver waits for room.
func (p *Poll) deliver(r record.Record) func(ctx context.Context) {
	return func(ctx context.Context) {
		if err := p.sink.Deliver(ctx, r); err != nil {
			p.link.log.Warn("a reading was not taken and is lost", "device", p.device, "poll", p.name, "error", err)
		}
	}
}
