package record

import (
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// String gives the text form of an epoch: 16 lower-case hexadecimal digits.
func (e Epoch) String() string { return string(e.appendText(nil)) }

func (e Epoch) appendText(b []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[uint64(e)>>shift&15])
	}
	return b
}

// ParseEpoch reads the text form of an epoch.
func ParseEpoch(s string) (Epoch, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 {
		return 0, fmt.Errorf("epoch %q is not 16 hexadecimal digits", s)
	}
	return Epoch(v), nil
}

// String gives the text form of a boot, which is that of an epoch.
func (b Boot) String() string { return Epoch(b).String() }

func (c Clock) String() string {
	switch c {
	case ClockSynced:
		return "synced"
	case ClockCorrected:
		return "corrected"
	case ClockUnsynced:
	}
	return "unsynced"
}

func (q Quality) String() string {
	switch q {
	case Good:
		return "good"
	case Partial:
		return "partial"
	case Bad:
	}
	return "bad"
}

// AppendJSON appends r as one JSON object (RFC 8259), without a newline:
//
//	{"agent":"gw-01","epoch":"53a1…","device":"boiler-1","stream":"temps",
//	 "seq":42,"part":0,"time":"2026-11-22T05:08:00.123456789Z","clock":"synced",
//	 "quality":"partial","values":{"supply_temp":21.5},"units":{"supply_temp":"°C"},
//	 "bad":{"flow":"timeout"}}
//
// Whole numbers stay exact to 64 bits, so a reader that takes every number for
// a double loses digits beyond 2^53. A raw payload stands in "payload" as
// base64 (RFC 4648, section 4) with its "content_type". With a clock that is
// "unsynced" or "corrected" stand "boot" and "uptime_ns", with a corrected one
// "time_recorded". A record that announces
// missing ones has "gap" and neither "seq" nor "quality". One that is sent again, out
// of its device's order, has "resent":true. Empty members are
// left out; bytes that are not UTF-8 become U+FFFD.
func (r *Record) AppendJSON(b []byte) []byte {
	b = appendQuoted(append(b, `{"agent":`...), r.Agent)
	b = r.Epoch.appendText(append(b, `,"epoch":"`...))
	b = appendQuoted(append(b, `","device":`...), r.Device)
	b = appendQuoted(append(b, `,"stream":`...), r.Stream)
	if r.Gap == nil {
		b = strconv.AppendUint(append(b, `,"seq":`...), r.Seq, 10)
		b = strconv.AppendUint(append(b, `,"part":`...), uint64(r.Part), 10)
	}
	b = appendJSONTime(append(b, `,"time":`...), r.Time)
	b = append(append(append(b, `,"clock":"`...), r.Clock.String()...), '"')
	b = r.appendBoot(b)
	if r.Resent {
		b = append(b, `,"resent":true`...)
	}
	if r.Gap != nil {
		return append(r.Gap.appendJSON(append(b, `,"gap":`...)), '}')
	}
	b = append(append(append(b, `,"quality":"`...), r.Quality.String()...), '"')
	b = appendMembers(b, "values", r.Points, func(b []byte, p *Point) ([]byte, bool) {
		return p.Value.AppendJSON(b), p.Bad == "" && p.Value.kind != KindNone && p.Value.Finite()
	})
	b = appendMembers(b, "units", r.Points, func(b []byte, p *Point) ([]byte, bool) {
		return appendQuoted(b, p.Unit), p.Unit != ""
	})
	b = appendMembers(b, "bad", r.Points, func(b []byte, p *Point) ([]byte, bool) {
		if p.Bad == "" && !p.Value.Finite() {
			return appendQuoted(b, BadNotFinite), true
		}
		return appendQuoted(b, p.Bad), p.Bad != ""
	})
	if len(r.Payload) > 0 || r.ContentType != "" {
		b = base64.StdEncoding.AppendEncode(append(b, `,"payload":"`...), r.Payload)
		b = appendQuoted(append(b, `","content_type":`...), r.ContentType)
	}
	return append(b, '}')
}

func (r *Record) appendBoot(b []byte) []byte {
	if !r.TimeRecorded.IsZero() {
		b = appendJSONTime(append(b, `,"time_recorded":`...), r.TimeRecorded)
	}
	if r.Boot == 0 {
		return b
	}
	b = Epoch(r.Boot).appendText(append(b, `,"boot":"`...))
	return strconv.AppendInt(append(b, `","uptime_ns":`...), int64(r.Up), 10)
}

// appendMembers appends one object with a member for each point that add takes,
// or nothing when it takes none.
func appendMembers(b []byte, name string, points []Point, add func([]byte, *Point) ([]byte, bool)) []byte {
	first := true
	for i := range points {
		start := len(b)
		if first {
			b = append(append(append(b, `,"`...), name...), `":{`...)
		} else {
			b = append(b, ',')
		}
		b = append(appendQuoted(b, points[i].Name), ':')
		var taken bool
		if b, taken = add(b, &points[i]); !taken {
			b = b[:start]
			continue
		}
		first = false
	}
	if first {
		return b
	}
	return append(b, '}')
}

// AppendJSON appends v as JSON: true, 21.5, "text"; null for KindNone. A float
// that is not Finite has no JSON, and makes none.
func (v Value) AppendJSON(b []byte) []byte {
	switch v.kind {
	case KindFloat32:
		return appendFloat(b, float64(math.Float32frombits(uint32(v.bits))), 32)
	case KindFloat64:
		return appendFloat(b, math.Float64frombits(v.bits), 64)
	case KindInt:
		return strconv.AppendInt(b, int64(v.bits), 10)
	case KindUint:
		return strconv.AppendUint(b, v.bits, 10)
	case KindBool:
		return strconv.AppendBool(b, v.bits != 0)
	case KindString:
		return appendQuoted(b, v.text)
	case KindNone:
	}
	return append(b, "null"...)
}

// appendFloat writes the shortest digits that read back as the same float of
// that size, with an exponent only where plain digits would be long.
func appendFloat(b []byte, f float64, size int) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, size)
}

func (g *Gap) appendJSON(b []byte) []byte {
	b = append(b, '{')
	if g.From != 0 {
		b = strconv.AppendUint(append(b, `"from":`...), g.From, 10)
		b = strconv.AppendUint(append(b, `,"to":`...), g.To, 10)
		b = append(b, ',')
	}
	b = strconv.AppendUint(append(b, `"count":`...), g.Count, 10)
	b = appendQuoted(append(b, `,"reason":`...), g.Reason)
	b = appendJSONTime(append(b, `,"first":`...), g.First)
	b = appendJSONTime(append(b, `,"last":`...), g.Last)
	return append(b, '}')
}

func appendJSONTime(b []byte, t time.Time) []byte {
	return append(t.UTC().AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

// appendQuoted appends s as a JSON string (RFC 8259, section 7).
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	plain := 0 // start of what needs no escape
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		b = append(b, s[plain:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c >= utf8.RuneSelf:
			b = utf8.AppendRune(b, utf8.RuneError)
		default:
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		plain = i
	}
	return append(append(b, s[plain:]...), '"')
}
