package text

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/mcp-edge/edge-agent/record"
)

// parser reads a line. It returns the stream of its record and the points,
// appended to points; ok is false when the line is not understood. It keeps
// nothing of the line. One goroutine uses it.
type parser interface {
	parse(line []byte, points []record.Point) (stream string, _ []record.Point, ok bool)
}

func newParser(c *Config) (parser, error) {
	switch c.Format {
	case FormatRules:
		return newRules(c)
	case FormatCSV:
		return newCSV(c)
	case FormatNMEA:
		return newNMEA(c), nil
	}
	return nil, fmt.Errorf("format %q is not known", c.Format)
}

// rules tries regular expressions in their order. RE2 takes time linear in the
// line, whatever the line is.
type rules []rule

type rule struct {
	stream string
	match  *regexp.Regexp
	names  []string // of its groups by number, "" for those without
	units  []string
}

func newRules(c *Config) (rules, error) {
	list := make(rules, 0, len(c.Rules))
	for _, r := range c.Rules {
		re, err := regexp.Compile(r.Match)
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", r.Name, err)
		}
		names := re.SubexpNames()
		units := make([]string, len(names))
		for i, name := range names {
			units[i] = c.Units[name]
		}
		list = append(list, rule{stream: r.Name, match: re, names: names, units: units})
	}
	return list, nil
}

// parse implements parser. A group that took no part in the match, or matched
// nothing, gives no point.
func (list rules) parse(line []byte, points []record.Point) (string, []record.Point, bool) {
	for i := range list {
		r := &list[i]
		at := r.match.FindSubmatchIndex(line)
		if at == nil {
			continue
		}
		for g, name := range r.names {
			if name == "" || at[2*g] < 0 || at[2*g] == at[2*g+1] {
				continue
			}
			p := record.Point{Name: name, Unit: r.units[g]}
			setValue(&p, string(line[at[2*g]:at[2*g+1]]))
			points = append(points, p)
		}
		return r.stream, points, true
	}
	return "", points, false
}

// csv reads columns (RFC 4180, but of one line, and with any separator).
type csv struct {
	stream    string
	separator string
	columns   []string
	units     map[string]string
}

func newCSV(c *Config) (*csv, error) {
	if utf8.RuneCountInString(c.Separator) != 1 {
		return nil, fmt.Errorf("separator %q is not one character", c.Separator)
	}
	return &csv{stream: c.Stream, separator: c.Separator, columns: c.Columns, units: c.Units}, nil
}

// parse implements parser. An empty field is a bad point: the column promises a
// value.
func (c *csv) parse(line []byte, points []record.Point) (string, []record.Point, bool) {
	rest := string(line)
	for i, name := range c.columns {
		field, after, more, ok := c.field(rest)
		if last := i == len(c.columns)-1; !ok || more == last {
			return "", points, false
		}
		rest = after
		if name == "" {
			continue
		}
		p := record.Point{Name: name, Unit: c.units[name]}
		if strings.TrimSpace(field) == "" {
			p.Bad = record.BadFormat
		} else {
			setValue(&p, field)
		}
		points = append(points, p)
	}
	return c.stream, points, true
}

// field takes the first field off s; more says that a separator follows it.
func (c *csv) field(s string) (field, rest string, more, ok bool) {
	quoted := strings.TrimLeft(s, " ")
	if !strings.HasPrefix(quoted, `"`) {
		field, rest, more = strings.Cut(s, c.separator)
		return field, rest, more, true
	}
	// Inside quotes two quotation marks stand for one.
	for end := 1; end < len(quoted); end++ {
		if quoted[end] != '"' {
			continue
		}
		if strings.HasPrefix(quoted[end+1:], `"`) {
			end++
			continue
		}
		field = strings.ReplaceAll(quoted[1:end], `""`, `"`)
		between, rest, more := strings.Cut(quoted[end+1:], c.separator)
		return field, rest, more, strings.TrimSpace(between) == ""
	}
	return "", "", false, false
}
