package modbus

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// mergeAgain is how long it is remembered which reads a device refused. After
// that, and when the line was opened anew, the merged ones are tried again: the
// device may have been exchanged or configured.
const mergeAgain = 10 * time.Minute

// reading reads points of one device, one request a step, again and again.
//
// When the device refuses a merged read, the read is halved until the points at
// fault stand alone; that costs a request for each halving, once: the split is
// remembered (see mergeAgain).
type reading struct {
	link    *Link
	device  string
	station station

	points []*point  // in the order of the result
	merged []read    // before anything was refused
	reads  []read    // as they are now
	split  time.Time // when reads became other than merged
	opens  int       // of the link, then

	next   int            // the read that comes next
	result []record.Point // of this round; used again by the next
}

func newReading(l *Link, device string, cfg DeviceConfig, points []*point) (reading, error) {
	merged, err := plan(points, cfg)
	return reading{
		link: l, device: device, station: station{unit: byte(cfg.Unit), gap: cfg.Gap},
		points: points, merged: merged, reads: merged, result: make([]record.Point, len(points)),
	}, err
}

// begin starts a round.
func (r *reading) begin() {
	if !r.split.IsZero() && (time.Since(r.split) >= mergeAgain || r.opens != r.link.opens) {
		r.reads, r.split = r.merged, time.Time{}
	}
	r.next = 0
	for i, point := range r.points {
		r.result[i] = record.Point{Name: point.label, Unit: point.Unit}
	}
}

// step does one read. It fails only with what ends or delays the round.
func (r *reading) step(ctx context.Context, t *scheduler.Turn) (more bool, err error) {
	read := r.reads[r.next]
	data, err := r.link.transact(ctx, t, r.station, read.request)
	refused, answered := errors.AsType[Exception](err)
	switch {
	case err == nil:
		for _, point := range read.points {
			value, bad := point.decode(data, read.first)
			r.set(point, value, bad)
			r.say(point, 0)
		}
	case answered && refused != GatewayNoAnswer:
		if halves, ok := read.split(); ok && mayBeOnePoint(refused) {
			r.halve(halves, refused)
			return true, nil
		}
		for _, point := range read.points {
			r.set(point, record.Value{}, refused.Reason())
			r.say(point, refused)
		}
	default:
		return false, err
	}
	r.next++
	return r.next < len(r.reads), nil
}

// end says why the points that were not read have no value.
func (r *reading) end(err error) {
	for _, read := range r.reads[r.next:] {
		for _, point := range read.points {
			r.set(point, record.Value{}, reason(err))
		}
	}
	r.next = len(r.reads)
}

// mayBeOnePoint tells whether a smaller read may be answered where a merged one
// was refused. The other exceptions concern the function, or the device.
func mayBeOnePoint(e Exception) bool {
	return e == IllegalAddress || e == IllegalValue || e == DeviceFailure
}

// halve puts the halves of the next read in its place.
func (r *reading) halve(halves []read, why Exception) {
	if r.split.IsZero() {
		r.reads = slices.Clone(r.reads)
		r.split, r.opens = time.Now(), r.link.opens
		r.link.log.Info("device refuses a merged read, reading its points apart", "device", r.device,
			"read", r.reads[r.next].request, "reason", why)
	}
	r.reads = slices.Replace(r.reads, r.next, r.next+1, halves...)
}

func (r *reading) set(point *point, value record.Value, bad string) {
	result := &r.result[point.place]
	result.Value, result.Bad = value, bad
}

// say logs a point's refusal, and its return, once.
func (r *reading) say(point *point, refused Exception) {
	if point.refused == refused {
		return
	}
	point.refused = refused
	log := r.link.log.With("device", r.device, "point", point.Name, "address", point.Address)
	if refused == 0 {
		log.Info("point can be read again")
		return
	}
	log.Warn("device refuses to give a point: check its address and type", "reason", refused)
}

// reason is why points were not read in a round that ended with err.
func reason(err error) string {
	if refused, ok := errors.AsType[Exception](err); ok {
		return refused.Reason()
	}
	switch {
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
