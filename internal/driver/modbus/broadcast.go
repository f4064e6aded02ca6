package modbus

import (
	"errors"
	"fmt"

	"github.com/mcp-edge/edge-agent/record"
)

// Broadcast makes the command that writes v to a point of d and, with the same
// request, to that address of all devices of an RTU line, whatever their unit.
// None of them answers. The error says to a user why that can't be done.
//
// line are the devices of the line; d may be among them. What is read-only in the
// configuration of one of them, or out of its limits there, is not written to any.
func (d *Device) Broadcast(name string, v record.Value, line []DeviceSpec) (*Command, error) {
	if d.link.cfg.Framing != FramingRTU {
		return nil, errors.New("a write to all devices at once (broadcast) exists on RTU lines only, and this link speaks Modbus TCP: write to each device")
	}
	c, err := d.writing(name, v)
	if err != nil {
		return nil, err
	}
	for _, other := range line {
		if other.ID == d.spec.ID {
			continue // what it allows was asked already
		}
		if err := d.link.bears(other, c.write); err != nil {
			return nil, fmt.Errorf("%s can't be written to all devices at once (broadcast), because of the device %s: %w; write to each device that is meant", name, other.ID, err)
		}
	}
	c.station = station{unit: everyone, all: true, gap: c.station.gap}
	return c, nil
}

// bears says to a user why a device must not carry out w, if that is so.
func (l *Link) bears(device DeviceSpec, w *write) error {
	for _, poll := range device.Polls {
		points, err := l.check(device.Device, poll.Points)
		if err != nil {
			return fmt.Errorf("poll %s: %w", poll.Poll, err)
		}
		for _, p := range points {
			if err := p.bears(w); err != nil {
				return fmt.Errorf("its point %s/%s (%s) %w", poll.Poll, p.Name, p.Address, err)
			}
		}
	}
	return nil
}

// bears says why p must not become what w makes of its registers.
func (p *point) bears(w *write) error {
	switch {
	case !p.overlaps(w.point):
		return nil
	case p.Access != "rw":
		return errors.New("is read-only")
	case !p.within(w.point):
		return errors.New("would be changed in part only")
	}
	data := w.raw
	if !p.table.bits() {
		data = w.point.ordered(nil, w.raw)
	}
	value, bad := p.decode(data, w.point.first)
	if bad != "" {
		return fmt.Errorf("would have no value (%s)", bad)
	}
	if number, ok := numberOf(value); ok && !p.allowed(number) {
		return fmt.Errorf("takes %v to %v (its limits), and would become %s", p.Limits[0], p.Limits[1], inWords(value))
	}
	return nil
}

// overlaps tells whether p has a bit in common with other.
func (p *point) overlaps(other *point) bool {
	return p.table == other.table && p.first < other.first+other.count && other.first < p.first+p.count && p.mask()&other.mask() != 0
}

// within tells whether all bits of p are of other as well.
func (p *point) within(other *point) bool {
	return p.table == other.table && p.first >= other.first && p.first+p.count <= other.first+other.count && p.mask()&^other.mask() == 0
}
