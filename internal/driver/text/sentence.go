package text

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/mcp-edge/edge-agent/record"
)

// field is one value of a sentence, which may take two of its fields.
type field struct {
	kind kind
	name string
	unit string
}

type kind uint8

const (
	number      kind = iota
	word             // text, also where it reads as a number
	unused           // a unit that is always the same
	utc              // hhmmss.ss
	date             // ddmmyy
	latitude         // ddmm.mm and the hemisphere: N or S
	longitude        // dddmm.mm and the hemisphere: E or W
	variation        // degrees and the direction: E or W
	speed            // a speed and its unit: N, M, K or S
	transducers      // type, value, unit and name, as often as it likes
)

// layouts are the sentences whose fields have names here (IEC 61162-1, section
// 8.3).
func layouts() map[string][]field {
	n := func(name, unit string) field { return field{number, name, unit} }
	w := func(name string) field { return field{word, name, ""} }
	skip := field{kind: unused}
	time, day := field{utc, "time", ""}, field{date, "date", ""}
	lat, lon := field{latitude, "latitude", "°"}, field{longitude, "longitude", "°"}
	return map[string][]field{
		"DBT": {n("depth_feet", "ft"), skip, n("depth", "m"), skip, n("depth_fathoms", "fathom"), skip},
		"DPT": {n("depth", "m"), n("offset", "m"), n("range", "m")},
		"GGA": {
			time, lat, lon, n("fix", ""), n("satellites", ""), n("hdop", ""), n("altitude", "m"), skip,
			n("geoid_separation", "m"), skip, n("dgps_age", "s"), w("dgps_station"),
		},
		"GLL": {lat, lon, time, w("status"), w("mode")},
		"GSA": {
			w("selection"), n("fix", ""), w("satellite_1"), w("satellite_2"), w("satellite_3"), w("satellite_4"),
			w("satellite_5"), w("satellite_6"), w("satellite_7"), w("satellite_8"), w("satellite_9"), w("satellite_10"),
			w("satellite_11"), w("satellite_12"), n("pdop", ""), n("hdop", ""), n("vdop", ""), w("system"),
		},
		"HDG": {n("heading_magnetic", "°"), {variation, "deviation", "°"}, {variation, "variation", "°"}},
		"HDM": {n("heading_magnetic", "°"), skip},
		"HDT": {n("heading", "°"), skip},
		"MTW": {n("water_temperature", "°C"), skip},
		"MWV": {n("wind_angle", "°"), w("reference"), {speed, "wind_speed", ""}, w("status")},
		"RMC": {
			time, w("status"), lat, lon, n("speed", "kn"), n("course", "°"), day,
			{variation, "variation", "°"},
			w("mode"), w("navigation_status"),
		},
		"ROT": {n("rate_of_turn", "°/min"), w("status")},
		"VHW": {
			n("heading", "°"), skip, n("heading_magnetic", "°"), skip,
			n("water_speed", "kn"), skip, n("water_speed_kmh", "km/h"), skip,
		},
		"VTG": {n("course", "°"), skip, n("course_magnetic", "°"), skip, n("speed", "kn"), skip, n("speed_kmh", "km/h"), skip, w("mode")},
		"XDR": {{kind: transducers}},
		"ZDA": {time, n("day", ""), n("month", ""), n("year", ""), n("zone_hours", "h"), n("zone_minutes", "min")},
	}
}

// width is how many fields of the sentence f takes.
func (f *field) width() int {
	switch f.kind { //nolint:exhaustive // the others take one
	case latitude, longitude, variation, speed:
		return 2
	}
	return 1
}

// point reads f from its fields; ok is false when there is nothing to tell.
func (f *field) point(from []string) (p record.Point, ok bool) {
	if f.kind == unused || from[0] == "" || len(from) < f.width() {
		return record.Point{}, false
	}
	p = record.Point{Name: f.name, Unit: f.unit}
	switch f.kind {
	case number:
		setNumber(&p, from[0])
	case speed:
		p.Unit = speedUnit(from[1])
		setNumber(&p, from[0])
	case utc:
		setText(&p, clockTime(from[0]))
	case date:
		setText(&p, calendarDate(from[0]))
	case latitude:
		setDegrees(&p, coordinate(from[0], 90), from[1], "N", "S")
	case longitude:
		setDegrees(&p, coordinate(from[0], 180), from[1], "E", "W")
	case variation:
		v, err := strconv.ParseFloat(from[0], 64)
		if _, number := looksLike(from[0]); !number || err != nil {
			v = math.NaN()
		}
		setDegrees(&p, v, from[1], "E", "W")
	case word, unused, transducers:
		setText(&p, from[0])
	}
	return p, true
}

// setNumber is setValue where a number must stand.
func setNumber(p *record.Point, s string) {
	setValue(p, s)
	if p.Value.Kind() == record.KindString {
		p.Value, p.Bad = record.Value{}, record.BadFormat
	}
}

// setText sets a text, or a bad point when it is empty.
func setText(p *record.Point, s string) {
	if s == "" {
		p.Bad = record.BadFormat
		return
	}
	p.Value = record.String(strings.ToValidUTF8(s, "\uFFFD"))
}

// setDegrees sets degrees, which the second of two directions makes negative.
func setDegrees(p *record.Point, v float64, direction, plus, minus string) {
	switch {
	case math.IsNaN(v):
		p.Bad = record.BadFormat
	case direction == plus:
		p.Value = record.Float64(v)
	case direction == minus:
		p.Value = record.Float64(-v)
	default:
		p.Bad = record.BadFormat
	}
}

// coordinate reads degrees and minutes, such as 3751.65 for 37° 51.65′; NaN is
// none.
func coordinate(s string, limit float64) float64 {
	whole, part, _ := strings.Cut(s, ".")
	cut := len(whole) - 2
	if cut < 0 || !digits(whole) || !digits(part) {
		return math.NaN()
	}
	minutes, err := strconv.ParseFloat(s[cut:], 64)
	degrees := 0
	if cut > 0 && err == nil {
		degrees, err = strconv.Atoi(whole[:cut])
	}
	v := float64(degrees) + minutes/60
	if err != nil || minutes >= 60 || v > limit {
		return math.NaN()
	}
	return v
}

// clockTime turns hhmmss.ss into hh:mm:ss.ss; "" is none.
func clockTime(s string) string {
	whole, part, _ := strings.Cut(s, ".")
	if len(whole) != 6 || !digits(whole) || !digits(part) || whole[:2] > "23" || whole[2:4] > "59" || whole[4:] > "60" {
		return ""
	}
	return s[:2] + ":" + s[2:4] + ":" + s[4:]
}

// calendarDate turns ddmmyy into yyyy-mm-dd; "" is none. GPS began in 1980.
func calendarDate(s string) string {
	if len(s) != 6 || !digits(s) || s[:2] < "01" || s[:2] > "31" || s[2:4] < "01" || s[2:4] > "12" {
		return ""
	}
	century := "20"
	if s[4:] >= "80" {
		century = "19"
	}
	return century + s[4:] + "-" + s[2:4] + "-" + s[:2]
}

func speedUnit(letter string) string {
	switch letter {
	case "N":
		return "kn"
	case "M":
		return "m/s"
	case "K":
		return "km/h"
	case "S":
		return "mph"
	}
	return ""
}

// transducers reads the groups of an XDR sentence. A point has its transducer's
// name, or its field's number where that is no name or stands there twice.
func (n *nmea) transducers(fields []string, points []record.Point) []record.Point {
	before := len(points)
	taken := func(name string) bool {
		return slices.ContainsFunc(points[before:], func(p record.Point) bool { return p.Name == name })
	}
	for at := 0; at+3 < len(fields); at += 4 {
		kind, value, unit, name := fields[at], fields[at+1], fields[at+2], fields[at+3]
		if value == "" {
			continue
		}
		if record.CheckName(name) != nil || taken(name) {
			name = n.number(at + 1)
		}
		if taken(name) {
			continue
		}
		p := record.Point{Name: name, Unit: transducerUnit(kind, unit)}
		setValue(&p, value)
		points = append(points, p)
	}
	return points
}

func transducerUnit(kind, unit string) string {
	switch unit {
	case "A", "N", "V":
		return unit
	case "B":
		return "bar"
	case "C":
		return "°C"
	case "D":
		return "°"
	case "H":
		return "Hz"
	case "M":
		return "m"
	case "P":
		if kind == "P" {
			return "Pa"
		}
		return "%"
	case "R":
		return "rpm"
	case "S":
		return "ppt"
	}
	return ""
}
