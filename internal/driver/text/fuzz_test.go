package text

import (
	"testing"
	"unicode/utf8"

	"github.com/mcp-edge/edge-agent/record"
)

// FuzzLine gives the same bytes to a stream of lines and to each format: nothing
// may panic, and what comes out must be a record that everybody accepts.
func FuzzLine(f *testing.F) {
	for _, seed := range []string{
		"W  -12.50 kg\r\n", "1,\"a,\"\"b\",20.5\n", "$GPHDT,274.07,T*03\r\n", "\n\n\n", "a", "1e999,NaN,\xff\n",
		"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n",
		sealed("YXXDR,C,-19.5,C,AIR,P,1.013,B,BARO,A,8,D,AIR") + "\n", sealed("GPRMC,,,,,,,,,320000,,"), sealed("GPGLL,.,N,,E"),
	} {
		f.Add([]byte(seed))
	}
	rules := base(func(c *Config) {
		c.Rules = []RuleConfig{{"all", `(?P<a>\S*)\s*(?P<b>[-+\deE.]*)(?P<c>.)?`}}
	})
	columns := base(func(c *Config) { c.Format, c.Columns = FormatCSV, []string{"a", "", "b"} })
	sentences := base(func(c *Config) { c.Format = FormatNMEA })
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := lines(t, newFramer(&Config{Delimiter: "\n", MaxLine: 100}), string(in))
		single := make([]string, 0, len(in))
		for i := range in {
			single = append(single, string(in[i:i+1]))
		}
		if got := lines(t, newFramer(&Config{Delimiter: "\n", MaxLine: 100}), single...); len(got) != len(whole) {
			t.Fatalf("%d lines at once, %d byte by byte", len(whole), len(got))
		}
		for _, c := range []Config{rules, columns, sentences} {
			p, err := newParser(&c)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range append(whole, string(in)) {
				check(t, p, line)
			}
		}
	})
}

func check(t *testing.T, p parser, line string) {
	stream, points, ok := p.parse([]byte(line), nil)
	if !ok {
		return
	}
	seen := make(map[string]bool)
	for _, point := range points {
		text, _ := point.Value.Text()
		if seen[point.Name] || !point.Value.Finite() || !utf8.ValidString(text) || (point.Bad != "") == (point.Value.Kind() != record.KindNone) {
			t.Fatalf("%q: point %+v", line, point)
		}
		seen[point.Name] = true
	}
	r := record.Record{Device: "d", Stream: stream, Points: points}
	var back record.Record
	if err := back.Unmarshal(r.Append(nil)); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
}
