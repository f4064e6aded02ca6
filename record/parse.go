package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
)

// ParseJSON sets r from what AppendJSON or AppendExact has written, or another
// program in that form. Points come with their values first, then those without
// one. A member that it does not know is given to other; without other it is an
// error, as are names that CheckName refuses, a record without device, stream or
// time, and anything that AppendJSON would not write. Nothing of r aliases b.
func (r *Record) ParseJSON(b []byte, other func(name string, value json.RawMessage) error) error {
	*r = Record{}
	p := parser{record: r, other: other}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := object(dec, func(name string) error { return p.member(dec, name) }); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the record")
	}
	return p.finish()
}

var errNoObject = errors.New("it is not one JSON object")

// parser holds what can only be put together at the end.
type parser struct {
	record *Record
	other  func(string, json.RawMessage) error
	seen   []string
	units  map[string]string
	types  map[string]string
	bad    []Point
	number map[string]json.Number // of points
}

// object calls each for the members of an object, to read their values.
func object(dec *json.Decoder, each func(name string) error) error {
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return errNoObject
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return inJSON(err)
		}
		text, ok := name.(string)
		if !ok {
			return errNoObject
		}
		if err := each(text); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return inJSON(err)
	}
	return nil
}

func inJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut short")
	}
	return fmt.Errorf("it is not JSON: %w", err)
}

func (p *parser) member(dec *json.Decoder, name string) error {
	for _, before := range p.seen {
		if before == name {
			return fmt.Errorf("%q comes twice", name)
		}
	}
	p.seen = append(p.seen, name)
	var err error
	r := p.record
	switch name {
	case "agent":
		err = dec.Decode(&r.Agent)
	case "epoch":
		r.Epoch, err = decodeText(dec, ParseEpoch)
	case "device":
		err = dec.Decode(&r.Device)
	case "stream":
		err = dec.Decode(&r.Stream)
	case "seq":
		err = dec.Decode(&r.Seq)
	case "part":
		err = dec.Decode(&r.Part)
	case "time":
		r.Time, err = decodeText(dec, parseTime)
	case "clock":
		r.Clock, err = decodeText(dec, parseClock)
	case "boot":
		var epoch Epoch
		epoch, err = decodeText(dec, ParseEpoch)
		r.Boot = Boot(epoch)
	case "uptime_ns":
		if err = dec.Decode((*int64)(&r.Up)); err == nil && r.Up < 0 {
			err = errors.New("it is negative")
		}
	case "time_recorded":
		r.TimeRecorded, err = decodeText(dec, parseTime)
	case "resent":
		err = dec.Decode(&r.Resent)
	case "quality":
		r.Quality, err = decodeText(dec, parseQuality)
	case "values":
		err = p.values(dec)
	case "units":
		err = dec.Decode(&p.units)
	case "types":
		err = dec.Decode(&p.types)
	case "bad":
		err = object(dec, func(point string) error {
			p.bad = append(p.bad, Point{Name: point})
			return dec.Decode(&p.bad[len(p.bad)-1].Bad)
		})
	case "payload":
		err = dec.Decode(&r.Payload)
	case "content_type":
		err = dec.Decode(&r.ContentType)
	case "gap":
		err = p.gap(dec)
	default:
		return p.unknown(dec, name)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", name, plainJSON(err))
	}
	return nil
}

// plainJSON leaves Go's types out of what the JSON package says.
func plainJSON(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("it can't be a %s", wrong.Value)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut short")
	}
	return err
}

func (p *parser) unknown(dec *json.Decoder, name string) error {
	if p.other == nil {
		return fmt.Errorf("%q is not known here: was it written by a newer version?", name)
	}
	var value json.RawMessage
	if err := dec.Decode(&value); err != nil {
		return inJSON(err)
	}
	return p.other(name, value)
}

func decodeText[T any](dec *json.Decoder, parse func(string) (T, error)) (T, error) {
	var text string
	var none T
	if err := dec.Decode(&text); err != nil {
		return none, err
	}
	return parse(text)
}

// parseTime takes what fits a record's time: from 1678 to 2262, or none.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	switch {
	case err != nil:
		return t, fmt.Errorf("%q is no time as in RFC 3339", s)
	case t.IsZero():
		return time.Time{}, nil
	case t.Before(time.Unix(0, math.MinInt64)) || t.After(time.Unix(0, math.MaxInt64)):
		return t, fmt.Errorf("%q is beyond the times that a record can have", s)
	}
	return t.UTC(), nil
}

func parseClock(s string) (Clock, error) {
	for _, c := range []Clock{ClockUnsynced, ClockSynced, ClockCorrected} {
		if c.String() == s {
			return c, nil
		}
	}
	return 0, fmt.Errorf("%q is none of synced, unsynced, corrected", s)
}

func parseQuality(s string) (Quality, error) {
	for _, q := range []Quality{Good, Partial, Bad} {
		if q.String() == s {
			return q, nil
		}
	}
	return 0, fmt.Errorf("%q is none of good, partial, bad", s)
}

// values takes numbers as they are written: their types may stand behind them.
func (p *parser) values(dec *json.Decoder) error {
	p.number = make(map[string]json.Number)
	return object(dec, func(name string) error {
		token, err := dec.Token()
		if err != nil {
			return inJSON(err)
		}
		point := Point{Name: name}
		switch v := token.(type) {
		case bool:
			point.Value = Bool(v)
		case string:
			point.Value = String(v)
		case json.Number:
			p.number[name] = v
		default:
			return fmt.Errorf("%q is neither a number nor a text nor true or false", name)
		}
		p.record.Points = append(p.record.Points, point)
		return nil
	})
}

func (p *parser) gap(dec *json.Decoder) error {
	g := new(Gap)
	p.record.Gap = g
	return object(dec, func(name string) (err error) {
		switch name {
		case "from":
			return dec.Decode(&g.From)
		case "to":
			return dec.Decode(&g.To)
		case "count":
			return dec.Decode(&g.Count)
		case "reason":
			return dec.Decode(&g.Reason)
		case "first":
			g.First, err = decodeText(dec, parseTime)
		case "last":
			g.Last, err = decodeText(dec, parseTime)
		default:
			err = fmt.Errorf("%q is not known here", name)
		}
		return err
	})
}

// finish puts the points together and checks the whole.
func (p *parser) finish() error {
	r := p.record
	for i := range r.Points {
		point := &r.Points[i]
		if text, ok := p.number[point.Name]; ok {
			v, err := parseNumber(string(text), p.types[point.Name])
			if err != nil {
				return fmt.Errorf("the value of %q: %w", point.Name, err)
			}
			point.Value = v
		}
	}
	r.Points = append(r.Points, p.bad...)
	for i := range r.Points {
		point := &r.Points[i]
		point.Unit = p.units[point.Name]
		if err := CheckName(point.Name); err != nil {
			return fmt.Errorf("the point's name %q %w", point.Name, err)
		}
	}
	switch {
	case len(r.Points) > MaxPoints:
		return fmt.Errorf("it has more than %d points", MaxPoints)
	case r.Time.IsZero() && !p.has("time"):
		return errors.New(`it has no "time"`)
	case (r.Gap != nil) != (r.Stream == GapStream):
		return fmt.Errorf("the stream %s is for announcing gaps, and for nothing else", GapStream)
	}
	return r.checkNames(&Record{})
}

func (p *parser) has(member string) bool {
	for _, name := range p.seen {
		if name == member {
			return true
		}
	}
	return false
}

// parseNumber reads a number of a type; without one, the type it looks like.
func parseNumber(text, kind string) (Value, error) {
	switch kind {
	case "":
		if i, err := strconv.ParseInt(text, 10, 64); err == nil && text != "-0" {
			return Int(i), nil
		}
		if u, err := strconv.ParseUint(text, 10, 64); err == nil {
			return Uint(u), nil
		}
		return parseFloat(text, 64)
	case typeUint:
		u, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return Value{}, fmt.Errorf("%s is no uint", text)
		}
		return Uint(u), nil
	case typeFloat32:
		return parseFloat(text, 32)
	case typeFloat64:
		return parseFloat(text, 64)
	}
	return Value{}, fmt.Errorf("there is no type %q", kind)
}

func parseFloat(text string, size int) (Value, error) {
	f, err := strconv.ParseFloat(text, size)
	switch {
	case err != nil:
		return Value{}, fmt.Errorf("%s is no float of %d bits", text, size)
	case size == 32:
		return Float32(float32(f)), nil
	}
	return Float64(f), nil
}
