package modbus

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mcp-edge/edge-agent/record"
)

// DeviceSpec is a device that can be commanded, with the points of all its polls.
type DeviceSpec struct {
	ID     string
	Device DeviceConfig
	Polls  []PollPoints
}

// PollPoints are the points of one poll.
type PollPoints struct {
	Poll   string
	Points []PointConfig
}

// Device makes commands toward one device of a Link. Its methods may be called
// concurrently; they send nothing.
//
// A point is named by its name alone where only one poll has it, and by
// POLL/NAME otherwise.
type Device struct {
	link *Link
	spec DeviceSpec
}

// Device makes a device of the link, which keeps spec. It fails when
// ValidatePoints or DeviceConfig.Validate find something wrong.
func (l *Link) Device(spec DeviceSpec) (*Device, error) {
	for _, p := range spec.Polls {
		if _, err := l.check(spec.Device, p.Points); err != nil {
			return nil, fmt.Errorf("modbus: poll %s of device %s: %w", p.Poll, spec.ID, err)
		}
	}
	return &Device{link: l, spec: spec}, nil
}

// WriteOptions say how a point is written.
type WriteOptions struct {
	// ReadBack reads the point afterwards: the command fails when it does not hold
	// what was written.
	ReadBack bool
}

// Write makes the command that writes v to a point. The error says to a user why
// that can't be done.
func (d *Device) Write(name string, v record.Value, o WriteOptions) (*Command, error) {
	c, err := d.writing(name, v)
	if err == nil {
		c.readBack = o.ReadBack
	}
	return c, err
}

func (d *Device) writing(name string, v record.Value) (*Command, error) {
	p, err := d.point(name)
	switch {
	case err != nil:
		return nil, err
	case !p.table.writable():
		return nil, fmt.Errorf("%s can't be written: it is in the table %s, which devices only let read", p.label, p.table)
	case p.Access != "rw":
		return nil, fmt.Errorf(`%s is read-only: give it access = "rw" in the configuration to allow writing it`, p.label)
	}
	request, raw, err := p.encode(v)
	if err != nil {
		return nil, err
	}
	return d.command([]*point{p}, &write{point: p, request: request, raw: raw, value: v})
}

// Read makes the command that reads points now; none means all that the device
// has. The error says to a user why that can't be done.
func (d *Device) Read(names []string) (*Command, error) {
	if len(names) == 0 {
		names = d.names()
	}
	var points []*point
	for _, name := range names {
		p, err := d.point(name)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(points, func(other *point) bool { return other.label == p.label }) {
			p.place = len(points)
			points = append(points, p)
		}
	}
	if len(points) == 0 {
		return nil, fmt.Errorf("%s has no points", d.spec.ID)
	}
	return d.command(points, nil)
}

func (d *Device) command(points []*point, w *write) (*Command, error) {
	r, err := newReading(d.link, d.spec.ID, d.spec.Device, points)
	if err != nil {
		return nil, err
	}
	return &Command{reading: r, write: w}, nil
}

// point finds the point that a user calls name.
func (d *Device) point(name string) (*point, error) {
	var found []*point
	var polls []string
	for i := range d.spec.Polls {
		poll := &d.spec.Polls[i]
		for j := range poll.Points {
			c := &poll.Points[j]
			if c.Name != name && poll.Poll+"/"+c.Name != name {
				continue
			}
			table, first, err := parseAddress(c.Address)
			if err != nil {
				return nil, err
			}
			p := c.point(table, first)
			p.label = name
			found, polls = append(found, &p), append(polls, poll.Poll)
		}
	}
	switch len(found) {
	case 0:
		return nil, d.unknown(name)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%s has a point %s in each of the polls %s: write %s/%s", d.spec.ID, name, strings.Join(polls, ", "), polls[0], name)
}

// names are what the points are called, each by the shortest name that is its own.
func (d *Device) names() (names []string) {
	count := make(map[string]int)
	for _, poll := range d.spec.Polls {
		for _, c := range poll.Points {
			count[c.Name]++
		}
	}
	for _, poll := range d.spec.Polls {
		for _, c := range poll.Points {
			if count[c.Name] > 1 {
				names = append(names, poll.Poll+"/"+c.Name)
			} else {
				names = append(names, c.Name)
			}
		}
	}
	return names
}

// unknown says which points there are instead of name, those that read alike first.
func (d *Device) unknown(name string) error {
	const most = 5
	names := d.names()
	folded := strings.ToLower(name)
	slices.SortStableFunc(names, func(a, b string) int {
		return distance(strings.ToLower(a), folded) - distance(strings.ToLower(b), folded)
	})
	switch {
	case len(names) == 0:
		return fmt.Errorf("%s has no points", d.spec.ID)
	case len(names) > most:
		return fmt.Errorf("%s has no point %q; of its %d points, these come closest: %s", d.spec.ID, name, len(names), strings.Join(names[:most], ", "))
	}
	return fmt.Errorf("%s has no point %q; it has %s", d.spec.ID, name, strings.Join(names, ", "))
}

// distance is how many letters must be changed, added or left out to make b of a.
func distance(a, b string) int {
	b = b[:min(len(b), 2*record.MaxName+1)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
