package text

import (
	"strconv"
	"strings"

	"github.com/mcp-edge/edge-agent/record"
)

// maxStreams bounds how many kinds of sentence one device may send: each is a
// stream of its own, and whoever can write to the line could invent new ones
// without end.
const maxStreams = 128

// nmea reads NMEA 0183 sentences (IEC 61162-1):
//
//	$GPGGA,081836.00,3751.65,S,14507.36,E,1,08,1.1,280.2,M,-34.0,M,,*hh
//
// The stream is talker and sentence as they stand there, "GPGGA". The points of
// common sentences have names, latitude and longitude are signed degrees, and
// an empty field (which means "not available") gives no point. Fields of other
// sentences are f1, f2 and so on. A sentence without a checksum is not
// understood: a cut one would look the same.
type nmea struct {
	layouts map[string][]field // by sentence, without its talker
	units   map[string]string
	streams map[string]string // those seen so far, by themselves
	numbers []string          // f1, f2, …, made once
	fields  []string
}

func newNMEA(c *Config) *nmea {
	return &nmea{layouts: layouts(), units: c.Units, streams: make(map[string]string)}
}

// parse implements parser.
func (n *nmea) parse(line []byte, points []record.Point) (string, []record.Point, bool) {
	body, ok := checked(line)
	if !ok {
		return "", points, false
	}
	address, data, _ := strings.Cut(string(body), ",")
	stream, ok := n.stream(address)
	if !ok {
		return "", points, false
	}
	n.split(data)
	if len(n.fields) > record.MaxPoints {
		return "", points, false
	}
	before := len(points)
	points = n.read(n.layouts[sentence(address)], points)
	for i := before; i < len(points); i++ {
		if unit, set := n.units[points[i].Name]; set {
			points[i].Unit = unit
		}
	}
	return stream, points, true
}

// checked returns what stands between the start and the checksum, if that is
// the exclusive or of it (IEC 61162-1, section 7.2.3.4).
func checked(line []byte) (body []byte, ok bool) {
	star := len(line) - 3
	if star < 1 || line[0] != '$' && line[0] != '!' || line[star] != '*' {
		return nil, false
	}
	high, low := hexDigit(line[star+1]), hexDigit(line[star+2])
	if high < 0 || low < 0 {
		return nil, false
	}
	body = line[1:star]
	return body, Checksum(body) == byte(high<<4|low)
}

// Checksum is that of a sentence: the exclusive or of the bytes between its
// start ($ or !) and its *.
func Checksum(body []byte) (sum byte) {
	for _, b := range body {
		sum ^= b
	}
	return sum
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// stream takes an address field for a stream: capital letters and digits, as
// many as the standard's and the makers' own sentences have.
func (n *nmea) stream(address string) (string, bool) {
	if known, ok := n.streams[address]; ok {
		return known, true
	}
	if len(address) < 3 || len(address) > 16 || len(n.streams) == maxStreams {
		return "", false
	}
	for i := range len(address) {
		if c := address[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return "", false
		}
	}
	address = strings.Clone(address)
	n.streams[address] = address
	return address, true
}

// sentence is the address without its talker, which has two letters; after a P
// stands a maker's own sentence, which has no talker.
func sentence(address string) string {
	if len(address) != 5 || address[0] == 'P' {
		return ""
	}
	return address[2:]
}

func (n *nmea) split(data string) {
	n.fields = n.fields[:0]
	for more := true; more; {
		var f string
		f, data, more = strings.Cut(data, ",")
		n.fields = append(n.fields, f)
	}
}

// read makes points of the fields, as far as the layout reaches, and numbered
// ones of the rest.
func (n *nmea) read(layout []field, points []record.Point) []record.Point {
	at := 0
	for _, f := range layout {
		if at >= len(n.fields) {
			return points
		}
		if f.kind == transducers {
			return n.transducers(n.fields[at:], points)
		}
		taken := n.fields[at:min(at+f.width(), len(n.fields))]
		at += f.width()
		if p, ok := f.point(taken); ok {
			points = append(points, p)
		}
	}
	for ; at < len(n.fields); at++ {
		if n.fields[at] == "" {
			continue
		}
		p := record.Point{Name: n.number(at)}
		setValue(&p, n.fields[at])
		points = append(points, p)
	}
	return points
}

// number is the name of the field at index i: f1 and so on.
func (n *nmea) number(i int) string {
	for len(n.numbers) <= i {
		n.numbers = append(n.numbers, "f"+strconv.Itoa(len(n.numbers)+1))
	}
	return n.numbers[i]
}
