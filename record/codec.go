package record

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// MaxPoints is the largest number of points in one record. It bounds what a
// hostile message can make the agent allocate.
const MaxPoints = 4096

// Field numbers of record.proto; frozen.
const (
	fieldDevice      = 1
	fieldStream      = 2
	fieldTime        = 3
	fieldClock       = 4
	fieldQuality     = 5
	fieldPoint       = 6
	fieldPayload     = 7
	fieldContentType = 8
	fieldGap         = 9
	fieldAgent       = 10
	fieldEpoch       = 11
	fieldSeq         = 12
	fieldPart        = 13
	fieldBoot        = 14
	fieldUptime      = 15
	fieldRecorded    = 16

	pointName    = 1
	pointFloat64 = 2
	pointFloat32 = 3
	pointInt     = 4
	pointUint    = 5
	pointBool    = 6
	pointText    = 7
	pointUnit    = 8
	pointBad     = 9

	gapFrom   = 1
	gapTo     = 2
	gapCount  = 3
	gapReason = 4
	gapFirst  = 5
	gapLast   = 6
)

var errMalformed = errors.New("malformed protobuf")

// Append appends the protobuf form of r (record.proto) to b and returns it.
func (r *Record) Append(b []byte) []byte {
	b = appendString(b, fieldDevice, r.Device)
	b = appendString(b, fieldStream, r.Stream)
	b = appendTime(b, fieldTime, r.Time)
	b = appendVarint(b, fieldClock, uint64(r.Clock))
	b = appendVarint(b, fieldQuality, uint64(r.Quality))
	for i := range r.Points {
		b = protowire.AppendTag(b, fieldPoint, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(r.Points[i].size()))
		b = r.Points[i].append(b)
	}
	if len(r.Payload) > 0 {
		b = protowire.AppendTag(b, fieldPayload, protowire.BytesType)
		b = protowire.AppendBytes(b, r.Payload)
	}
	b = appendString(b, fieldContentType, r.ContentType)
	if r.Gap != nil {
		var scratch [128]byte
		b = protowire.AppendTag(b, fieldGap, protowire.BytesType)
		b = protowire.AppendBytes(b, r.Gap.append(scratch[:0]))
	}
	b = appendString(b, fieldAgent, r.Agent)
	if r.Epoch != 0 {
		b = protowire.AppendTag(b, fieldEpoch, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, uint64(r.Epoch))
	}
	b = appendVarint(b, fieldSeq, r.Seq)
	b = appendVarint(b, fieldPart, uint64(r.Part))
	if r.Boot != 0 {
		b = protowire.AppendTag(b, fieldBoot, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, uint64(r.Boot))
	}
	b = appendVarint(b, fieldUptime, uint64(r.Up))
	return appendTime(b, fieldRecorded, r.TimeRecorded)
}

// Append appends the fields of a record that say when. Behind a record's protobuf
// form they take the place of what it says itself: of a field that comes twice,
// protobuf takes the last.
func (s *Stamp) Append(b []byte) []byte {
	b = appendTime(b, fieldTime, s.Time)
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldClock, protowire.VarintType), uint64(s.Clock))
	b = protowire.AppendFixed64(protowire.AppendTag(b, fieldBoot, protowire.Fixed64Type), uint64(s.Boot))
	return protowire.AppendVarint(protowire.AppendTag(b, fieldUptime, protowire.VarintType), uint64(s.Up))
}

func (p *Point) append(b []byte) []byte {
	b = appendString(b, pointName, p.Name)
	switch v := p.Value; v.kind {
	case KindFloat64:
		b = protowire.AppendTag(b, pointFloat64, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, v.bits)
	case KindFloat32:
		b = protowire.AppendTag(b, pointFloat32, protowire.Fixed32Type)
		b = protowire.AppendFixed32(b, uint32(v.bits))
	case KindInt:
		b = protowire.AppendTag(b, pointInt, protowire.VarintType)
		b = protowire.AppendVarint(b, protowire.EncodeZigZag(int64(v.bits)))
	case KindUint:
		b = protowire.AppendTag(b, pointUint, protowire.VarintType)
		b = protowire.AppendVarint(b, v.bits)
	case KindBool:
		b = protowire.AppendTag(b, pointBool, protowire.VarintType)
		b = protowire.AppendVarint(b, v.bits)
	case KindString:
		b = protowire.AppendTag(b, pointText, protowire.BytesType)
		b = protowire.AppendString(b, v.text)
	case KindNone:
	}
	b = appendString(b, pointUnit, p.Unit)
	return appendString(b, pointBad, p.Bad)
}

// size is the length of what append adds; every field number here fits a
// one-byte tag.
func (p *Point) size() int {
	n := sizeString(p.Name) + sizeString(p.Unit) + sizeString(p.Bad)
	switch v := p.Value; v.kind {
	case KindFloat64:
		n += 1 + 8
	case KindFloat32:
		n += 1 + 4
	case KindInt:
		n += 1 + protowire.SizeVarint(protowire.EncodeZigZag(int64(v.bits)))
	case KindUint:
		n += 1 + protowire.SizeVarint(v.bits)
	case KindBool:
		n += 1 + 1
	case KindString:
		n += 1 + protowire.SizeBytes(len(v.text))
	case KindNone:
	}
	return n
}

func (g *Gap) append(b []byte) []byte {
	b = appendVarint(b, gapFrom, g.From)
	b = appendVarint(b, gapTo, g.To)
	b = appendVarint(b, gapCount, g.Count)
	b = appendString(b, gapReason, g.Reason)
	b = appendTime(b, gapFirst, g.First)
	return appendTime(b, gapLast, g.Last)
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func sizeString(s string) int {
	if s == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(s))
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendTime leaves the zero time out, so that it comes back as the zero time.
func appendTime(b []byte, field protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), uint64(t.UnixNano()))
}

// Unmarshal sets r from the protobuf form in b, replacing everything.
//
// To keep a steady stream of records free of allocations it reuses the capacity
// of r.Points and each string of r that already reads the same; Payload aliases
// b. It fails on a malformed message, on a name that CheckName refuses (the
// stream GapStream is allowed) and on more than MaxPoints points; unknown
// fields are skipped. A float that is not finite becomes a bad point, and
// Quality is never better than the points are.
func (r *Record) Unmarshal(b []byte) error {
	old := *r
	*r = Record{Points: old.Points[:0]}
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("record: %w", errMalformed)
		}
		b = b[n:]
		var err error
		if n, err = r.unmarshalField(&old, field, kind, b); err != nil {
			return fmt.Errorf("record: %w", err)
		}
		b = b[n:]
	}
	if len(r.Points) > 0 {
		r.Quality = max(r.Quality, Summarise(r.Points))
	}
	return r.checkNames(&old)
}

// checkNames skips the names that are those of old, which were checked before.
func (r *Record) checkNames(old *Record) error {
	if r.Device != old.Device || r.Device == "" {
		if err := CheckName(r.Device); err != nil {
			return fmt.Errorf("record: device name %w", err)
		}
	}
	if (r.Stream != old.Stream || r.Stream == "") && r.Stream != GapStream {
		if err := CheckName(r.Stream); err != nil {
			return fmt.Errorf("record: stream name %w", err)
		}
	}
	if r.Agent != old.Agent && r.Agent != "" {
		if err := CheckName(r.Agent); err != nil {
			return fmt.Errorf("record: agent name %w", err)
		}
	}
	return nil
}

func (r *Record) unmarshalField(old *Record, field protowire.Number, kind protowire.Type, b []byte) (int, error) {
	switch kind {
	case protowire.BytesType:
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return 0, errMalformed
		}
		return n, r.setBytes(old, field, v)
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return 0, errMalformed
		}
		return n, r.setVarint(field, v)
	case protowire.Fixed64Type:
		v, n := protowire.ConsumeFixed64(b)
		if n < 0 {
			return 0, errMalformed
		}
		switch field {
		case fieldTime:
			r.Time = time.Unix(0, int64(v)).UTC()
		case fieldEpoch:
			r.Epoch = Epoch(v)
		case fieldBoot:
			r.Boot = Boot(v)
		case fieldRecorded:
			r.TimeRecorded = time.Unix(0, int64(v)).UTC()
		}
		return n, nil
	default:
		n := protowire.ConsumeFieldValue(field, kind, b)
		if n < 0 {
			return 0, errMalformed
		}
		return n, nil
	}
}

func (r *Record) setBytes(old *Record, field protowire.Number, v []byte) error {
	switch field {
	case fieldDevice:
		r.Device = keep(old.Device, v)
	case fieldStream:
		r.Stream = keep(old.Stream, v)
	case fieldPayload:
		r.Payload = v
	case fieldContentType:
		r.ContentType = keep(old.ContentType, v)
	case fieldAgent:
		r.Agent = keep(old.Agent, v)
	case fieldPoint:
		return r.addPoint(v)
	case fieldGap:
		r.Gap = new(Gap)
		return r.Gap.unmarshal(v)
	}
	return nil
}

func (r *Record) setVarint(field protowire.Number, v uint64) error {
	switch field {
	case fieldClock:
		if r.Clock = ClockUnsynced; v <= uint64(ClockCorrected) { // what is not known is not sure
			r.Clock = Clock(v)
		}
	case fieldQuality:
		r.Quality = Quality(min(v, uint64(Bad)))
	case fieldSeq:
		r.Seq = v
	case fieldPart:
		if v > math.MaxUint32 {
			return fmt.Errorf("part %d is beyond 32 bits", v)
		}
		r.Part = uint32(v)
	case fieldUptime:
		r.Up = time.Duration(min(v, math.MaxInt64))
	}
	return nil
}

// addPoint reuses the strings of the point that stood in the same place before.
func (r *Record) addPoint(b []byte) error {
	i := len(r.Points)
	if i == MaxPoints {
		return fmt.Errorf("more than %d points", MaxPoints)
	}
	if i < cap(r.Points) {
		r.Points = r.Points[:i+1]
	} else {
		r.Points = append(r.Points, Point{})
	}
	return r.Points[i].unmarshal(b)
}

func (p *Point) unmarshal(b []byte) error {
	old := *p
	*p = Point{}
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return errMalformed
		}
		p.setField(&old, field, kind, b)
		b = b[n:]
	}
	if !p.Value.Finite() {
		p.Value = Value{}
		p.Bad = BadNotFinite
	}
	if p.Bad != "" {
		p.Value = Value{}
	}
	if p.Name == old.Name && p.Name != "" {
		return nil
	}
	if err := CheckName(p.Name); err != nil {
		return fmt.Errorf("point name %w", err)
	}
	return nil
}

// setField takes a field whose value is known to be whole.
func (p *Point) setField(old *Point, field protowire.Number, kind protowire.Type, b []byte) {
	switch kind {
	case protowire.BytesType:
		v, _ := protowire.ConsumeBytes(b)
		switch field {
		case pointName:
			p.Name = keep(old.Name, v)
		case pointUnit:
			p.Unit = keep(old.Unit, v)
		case pointBad:
			p.Bad = keep(old.Bad, v)
		case pointText:
			p.Value = String(keep(old.Value.text, v))
		}
	case protowire.VarintType:
		v, _ := protowire.ConsumeVarint(b)
		switch field {
		case pointInt:
			p.Value = Int(protowire.DecodeZigZag(v))
		case pointUint:
			p.Value = Uint(v)
		case pointBool:
			p.Value = Bool(v != 0)
		}
	case protowire.Fixed64Type:
		if v, _ := protowire.ConsumeFixed64(b); field == pointFloat64 {
			p.Value = Float64(math.Float64frombits(v))
		}
	case protowire.Fixed32Type:
		if v, _ := protowire.ConsumeFixed32(b); field == pointFloat32 {
			p.Value = Float32(math.Float32frombits(v))
		}
	case protowire.StartGroupType, protowire.EndGroupType: // unknown here, skipped
	}
}

func (g *Gap) unmarshal(b []byte) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return errMalformed
		}
		switch {
		case kind == protowire.VarintType && field == gapFrom:
			g.From, _ = protowire.ConsumeVarint(b)
		case kind == protowire.VarintType && field == gapTo:
			g.To, _ = protowire.ConsumeVarint(b)
		case kind == protowire.VarintType && field == gapCount:
			g.Count, _ = protowire.ConsumeVarint(b)
		case kind == protowire.BytesType && field == gapReason:
			v, _ := protowire.ConsumeBytes(b)
			g.Reason = string(v)
		case kind == protowire.Fixed64Type && field == gapFirst:
			v, _ := protowire.ConsumeFixed64(b)
			g.First = time.Unix(0, int64(v)).UTC()
		case kind == protowire.Fixed64Type && field == gapLast:
			v, _ := protowire.ConsumeFixed64(b)
			g.Last = time.Unix(0, int64(v)).UTC()
		}
		b = b[n:]
	}
	return nil
}

// keep returns old if it reads like b, and a new string only otherwise.
func keep(old string, b []byte) string {
	if old == string(b) {
		return old
	}
	return string(b)
}

// Summarise tells the quality of a set of points: Good if each has a value, Bad
// if none has, Partial in between. No points are Good.
func Summarise(points []Point) Quality {
	bad := 0
	for i := range points {
		if points[i].Bad != "" {
			bad++
		}
	}
	switch {
	case bad == 0:
		return Good
	case bad == len(points):
		return Bad
	}
	return Partial
}
