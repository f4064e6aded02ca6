package modbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// mergeAgain is how long a poll remembers which reads its device refused. After
// that, and when the line was opened anew, it tries the merged ones again: the
// device may have been exchanged or configured.
const mergeAgain = 10 * time.Minute

// Sink takes the records that polls make. Deliver returns when the record is
// accepted, and fails when ctx ends before.
type Sink interface {
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
// exception-2. When the device refuses a merged read, the read is halved until
// the points at fault stand alone; that costs a request for each halving, once:
// the split is remembered (see mergeAgain).
type Poll struct {
	link *Link
	cfg  PollConfig
	sink Sink
	now  func() (time.Time, record.Clock)

	points []*point  // as configured
	merged []read    // before anything was refused
	reads  []read    // as they are now
	split  time.Time // when reads became other than merged
	opens  int       // of the link, then

	next   int            // the read of the round that comes next
	result []record.Point // of the round, in the order of points
	at     time.Time      // of the round's last answer, zero before it
	clock  record.Clock
}

var _ scheduler.Task = (*Poll)(nil)

// Poll makes a poll of the link. It fails when ValidatePoints or
// DeviceConfig.Validate find something wrong.
func (l *Link) Poll(cfg PollConfig, sink Sink, now func() (time.Time, record.Clock)) (*Poll, error) {
	var problems []error
	cfg.Device.Validate(l.cfg.Framing, func(key, problem string) {
		problems = append(problems, fmt.Errorf("%s: %s", key, problem))
	})
	ValidatePoints(cfg.Device, cfg.Points, func(i int, key, problem string) {
		problems = append(problems, fmt.Errorf("points[%d].%s: %s", i, key, problem))
	})
	p := &Poll{link: l, cfg: cfg, sink: sink, now: now}
	if len(problems) == 0 {
		for i, c := range cfg.Points {
			table, first, _ := parseAddress(c.Address) // checked above
			parsed := c.point(table, first)
			parsed.place = i
			p.points = append(p.points, &parsed)
		}
		var err error
		if p.merged, err = plan(p.points, cfg.Device); err != nil {
			problems = append(problems, err)
		}
	}
	if len(p.points) == 0 {
		problems = append(problems, errors.New("it has no points"))
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("modbus: poll %s of device %s: %w", cfg.Name, cfg.ID, errors.Join(problems...))
	}
	p.reads = p.merged
	return p, nil
}

// Begin implements scheduler.Task.
func (p *Poll) Begin(time.Time) {
	if !p.split.IsZero() && (time.Since(p.split) >= mergeAgain || p.opens != p.link.opens) {
		p.reads, p.split = p.merged, time.Time{}
	}
	p.next, p.at = 0, time.Time{}
	p.result = make([]record.Point, len(p.points))
	for i, point := range p.points {
		p.result[i] = record.Point{Name: point.Name, Unit: point.Unit}
	}
}

// Step implements scheduler.Task: one read.
func (p *Poll) Step(ctx context.Context) (more bool, err error) {
	r := p.reads[p.next]
	data, err := p.link.transact(ctx, byte(p.cfg.Device.Unit), r.request)
	var refused Exception
	switch {
	case err == nil:
		for _, point := range r.points {
			value, bad := point.decode(data, r.first)
			p.set(point, value, bad)
			p.say(point, 0)
		}
	case errors.As(err, &refused) && refused != GatewayNoAnswer:
		if halves, ok := r.split(); ok && mayBeOnePoint(refused) {
			p.halve(halves, refused)
			return true, nil
		}
		for _, point := range r.points {
			p.set(point, record.Value{}, refused.Reason())
			p.say(point, refused)
		}
	default:
		return false, err
	}
	p.at, p.clock = p.now()
	p.next++
	return p.next < len(p.reads), nil
}

// mayBeOnePoint tells whether a smaller read may be answered where a merged one
// was refused. The other exceptions concern the function, or the device.
func mayBeOnePoint(e Exception) bool {
	return e == IllegalAddress || e == IllegalValue || e == DeviceFailure
}

// halve puts the halves of the next read in its place.
func (p *Poll) halve(halves []read, why Exception) {
	if p.split.IsZero() {
		p.reads = slices.Clone(p.reads)
		p.split, p.opens = time.Now(), p.link.opens
		p.link.log.Info("device refuses a merged read, reading its points apart", "device", p.cfg.ID, "poll", p.cfg.Name,
			"read", p.reads[p.next].request, "reason", why)
	}
	p.reads = slices.Replace(p.reads, p.next, p.next+1, halves...)
}

func (p *Poll) set(point *point, value record.Value, bad string) {
	result := &p.result[point.place]
	result.Value, result.Bad = value, bad
}

// say logs a point's refusal, and its return, once.
func (p *Poll) say(point *point, refused Exception) {
	if point.refused == refused {
		return
	}
	point.refused = refused
	log := p.link.log.With("device", p.cfg.ID, "poll", p.cfg.Name, "point", point.Name, "address", point.Address)
	if refused == 0 {
		log.Info("point can be read again")
		return
	}
	log.Warn("device refuses to give a point: check its address and type", "reason", refused)
}

// End implements scheduler.Task: it delivers the round's record.
func (p *Poll) End(ctx context.Context, err error) {
	if err != nil || p.at.IsZero() {
		p.at, p.clock = p.now()
	}
	for _, r := range p.reads[p.next:] {
		for _, point := range r.points {
			p.set(point, record.Value{}, reason(err))
		}
	}
	r := record.Record{
		Device: p.cfg.ID, Stream: p.cfg.Name,
		Time: p.at, Clock: p.clock, Quality: quality(p.result), Points: p.result,
	}
	p.result = nil
	if err := p.sink.Deliver(ctx, r); err != nil {
		p.link.log.Warn("a reading was not taken and is lost", "device", p.cfg.ID, "poll", p.cfg.Name, "error", err)
	}
}

// reason is why points were not read in a round that ended with err.
func reason(err error) string {
	var refused Exception
	switch {
	case errors.As(err, &refused):
		return refused.Reason()
	case errors.Is(err, scheduler.ErrLinkDown), errors.Is(err, transport.ErrLost), errors.Is(err, net.ErrClosed):
		return record.BadLinkDown
	}
	return record.BadTimeout // also when the agent was stopped before the answer came
}

func quality(points []record.Point) record.Quality {
	bad := 0
	for _, p := range points {
		if p.Bad != "" {
			bad++
		}
	}
	switch bad {
	case 0:
		return record.Good
	case len(points):
		return record.Bad
	}
	return record.Partial
}
