package text

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mcp-edge/edge-agent/record"
)

// Formats of a line.
const (
	FormatRules = "rules"
	FormatCSV   = "csv"
	FormatNMEA  = "nmea"
)

// Config is the text table of a [[device]].
type Config struct {
	// Delimiter ends a line. The default takes LF and CR LF.
	Delimiter string `toml:"delimiter" default:"\n"`
	// Idle, when set, ends a line by silence instead of by Delimiter.
	Idle time.Duration `toml:"idle" min:"1ms" max:"1m"`
	// Silence is how long the device may say nothing before it counts as silent;
	// 0s means for ever, for one that speaks only when somebody uses it.
	Silence time.Duration `toml:"silence" default:"0s" min:"0s" max:"720h"`
	// MaxLine is the longest line in bytes; a longer one is counted and dropped.
	MaxLine int `toml:"max_line" unit:"bytes" default:"1KiB" min:"1" max:"65536"`
	// Format is how lines are read: "rules" (named regular expressions, tried
	// in their order), "csv" (columns) or "nmea" (NMEA 0183 sentences).
	Format string `toml:"format" default:"rules" oneof:"rules,csv,nmea"`
	// Rules of format "rules".
	Rules []RuleConfig `toml:"rules"`
	// Columns of format "csv", left to right; an empty name skips its column.
	// A line with more or fewer is not understood.
	Columns []string `toml:"columns"`
	// Separator of format "csv", one character.
	Separator string `toml:"separator" default:","`
	// Stream names the records of format "csv", and those of lines that were
	// not understood.
	Stream string `toml:"stream" default:"line" name:"true"`
	// Units by point name, such as { weight = "kg" }.
	Units map[string]string `toml:"units"`
}

// RuleConfig is one entry of rules.
type RuleConfig struct {
	// Name of the rule; the record's stream.
	Name string `toml:"name" required:"true" name:"true" example:"\"weight\""`
	// Match is a regular expression (Go's RE2 syntax); its named groups become
	// points. What reads as a number becomes one.
	Match string `toml:"match" required:"true" example:"'(?P<weight>[-\\d.]+)'"`
}

// Validate reports what is wrong with c, by the key it is wrong in.
func (c *Config) Validate(report func(key, problem string)) {
	if c.Delimiter == "" && c.Idle == 0 {
		report("delimiter", `is empty: write what ends a line, such as "\r\n", or set idle`)
	}
	var points []string
	switch c.Format {
	case FormatRules:
		points = c.validateRules(report)
		c.unused(report, "columns", len(c.Columns) > 0)
	case FormatCSV:
		points = c.validateColumns(report)
		c.unused(report, "rules", len(c.Rules) > 0)
	case FormatNMEA:
		c.unused(report, "rules", len(c.Rules) > 0)
		c.unused(report, "columns", len(c.Columns) > 0)
		return // what a receiver sends is not known before
	}
	for _, name := range slices.Sorted(maps.Keys(c.Units)) {
		if points != nil && !slices.Contains(points, name) {
			report("units."+name, "there is no such point; there are "+strings.Join(points, ", "))
		}
	}
}

func (c *Config) unused(report func(key, problem string), key string, set bool) {
	if set {
		report(key, fmt.Sprintf("does not go with format = %q: remove one", c.Format))
	}
}

// validateRules returns the points' names, or nil when they are not known.
func (c *Config) validateRules(report func(key, problem string)) (points []string) {
	if len(c.Rules) == 0 {
		report("rules", `is empty: write at least one, such as { name = "weight", match = '(?P<weight>[-\d.]+)' }, or another format`)
		return nil
	}
	names := make(map[string]int)
	points = []string{}
	good := true
	for i := range c.Rules {
		r, at := &c.Rules[i], fmt.Sprintf("rules[%d]", i)
		if earlier, taken := names[r.Name]; taken && r.Name != "" {
			report(at+".name", fmt.Sprintf("%q is the name of rules[%d] too", r.Name, earlier))
		}
		names[r.Name] = i
		found, err := groups(r.Match)
		if err != nil {
			report(at+".match", err.Error())
			good = false
		}
		points = append(points, found...)
	}
	if !good {
		return nil
	}
	return points
}

// groups returns the named groups of an expression.
func groups(match string) ([]string, error) {
	if match == "" {
		return nil, nil // reported as missing by whoever reads the table
	}
	re, err := regexp.Compile(match)
	if err != nil {
		return nil, fmt.Errorf("is no regular expression that RE2 knows: %w", err)
	}
	var names []string
	for _, name := range re.SubexpNames() {
		if name == "" {
			continue
		}
		if err := record.CheckName(name); err != nil {
			return nil, fmt.Errorf("group %q: as a point's name it %w", name, err)
		}
		names = append(names, name)
	}
	if len(names) > record.MaxPoints {
		return nil, fmt.Errorf("has %d named groups, at most %d are allowed", len(names), record.MaxPoints)
	}
	return names, nil
}

// validateColumns returns the points' names.
func (c *Config) validateColumns(report func(key, problem string)) (points []string) {
	if r, n := utf8.DecodeRuneInString(c.Separator); n == 0 || n != len(c.Separator) || r == utf8.RuneError || r == '"' {
		report("separator", fmt.Sprintf(`%q must be one character, and not the quotation mark`, c.Separator))
	}
	points = []string{}
	for i, name := range c.Columns {
		at := fmt.Sprintf("columns[%d]", i)
		if name == "" {
			continue
		}
		if err := record.CheckName(name); err != nil {
			report(at, err.Error())
		}
		if slices.Contains(points, name) {
			report(at, fmt.Sprintf("%q stands there twice", name))
		}
		points = append(points, name)
	}
	switch {
	case len(points) == 0:
		report("columns", `names no column: write them from left to right, such as ["time", "weight"], with "" for those to skip`)
	case len(c.Columns) > record.MaxPoints:
		report("columns", fmt.Sprintf("has %d, at most %d are allowed", len(c.Columns), record.MaxPoints))
	}
	return points
}
