package record

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Checker tells whether records from outside mean one thing only, so that none
// has to be altered on its way. The zero value is ready; what it remembers of a
// record is room. It must not be used concurrently.
type Checker struct {
	names map[string]struct{} // of one record with many points; empty in between
}

// fewPoints are compared with each other, which is faster than a map.
const fewPoints = 16

var (
	errNothing  = errors.New("it has neither points nor a payload")
	errMixed    = errors.New("it announces a gap, and has points or a payload too")
	errType     = errors.New("the content type is not UTF-8")
	errGapText  = errors.New("the reason of the gap is not UTF-8")
	errNoValue  = errors.New("has neither a value nor a reason why there is none")
	errUnitText = errors.New("has a unit that is not UTF-8")
	errBadText  = errors.New("has a reason for its missing value that is not UTF-8")
	errText     = errors.New("has a text that is not UTF-8")
)

// Check wants of a record that Unmarshal has read: points, a payload (of which a
// content type alone says that it is empty) or both, or a gap; points whose names
// differ, each with a value or the reason why there is none; and UTF-8
// wherever there is text. The error names device and point.
func (c *Checker) Check(r *Record) error {
	if err := c.check(r); err != nil {
		return fmt.Errorf("device %s: %w", r.Device, err)
	}
	return nil
}

func (c *Checker) check(r *Record) error {
	says := len(r.Points) > 0 || len(r.Payload) > 0 || r.ContentType != ""
	switch {
	case !says && r.Gap == nil:
		return errNothing
	case says && r.Gap != nil:
		return errMixed
	case !utf8.ValidString(r.ContentType):
		return errType
	case r.Gap != nil && !utf8.ValidString(r.Gap.Reason):
		return errGapText
	}
	for i := range r.Points {
		if err := r.Points[i].check(); err != nil {
			return fmt.Errorf("the point %s %w", r.Points[i].Name, err)
		}
	}
	if name, twice := c.twice(r.Points); twice {
		return fmt.Errorf("the point %s comes twice", name)
	}
	return nil
}

func (p *Point) check() error {
	switch {
	case p.Value.kind == KindNone && p.Bad == "":
		return errNoValue
	case !utf8.ValidString(p.Value.text):
		return errText
	case !utf8.ValidString(p.Unit):
		return errUnitText
	case !utf8.ValidString(p.Bad):
		return errBadText
	}
	return nil
}

// twice finds a name that two points bear.
func (c *Checker) twice(points []Point) (name string, found bool) {
	if len(points) <= fewPoints {
		for i := range points {
			for j := range i {
				if points[i].Name == points[j].Name {
					return points[i].Name, true
				}
			}
		}
		return "", false
	}
	if c.names == nil {
		c.names = make(map[string]struct{}, len(points))
	}
	defer clear(c.names)
	for i := range points {
		c.names[points[i].Name] = struct{}{}
		if len(c.names) == i {
			return points[i].Name, true
		}
	}
	return "", false
}
