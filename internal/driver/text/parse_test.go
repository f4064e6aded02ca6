package text

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/record"
)

func TestWhatReadsAsANumberBecomesOne(t *testing.T) {
	for in, want := range map[string]record.Value{
		"0":                    record.Int(0),
		"-12":                  record.Int(-12),
		"+12":                  record.Int(12),
		"007":                  record.Int(7),
		" 5 ":                  record.Int(5),
		"9223372036854775807":  record.Int(math.MaxInt64),
		"-9223372036854775808": record.Int(math.MinInt64),
		"18446744073709551615": record.Uint(math.MaxUint64),
		"18446744073709551616": record.Float64(1 << 64),
		"12.5":                 record.Float64(12.5),
		"-.5":                  record.Float64(-.5),
		"3.":                   record.Float64(3),
		"1e3":                  record.Float64(1000),
		"1E-3":                 record.Float64(.001),
		"":                     record.String(""),
		"-":                    record.String("-"),
		".":                    record.String("."),
		"e3":                   record.String("e3"),
		"1e":                   record.String("1e"),
		"--5":                  record.String("--5"),
		"0x10":                 record.String("0x10"),
		"1_000":                record.String("1_000"),
		"12,5":                 record.String("12,5"),
		"12 kg":                record.String("12 kg"),
		"caf\xe9":              record.String("caf\uFFFD"),
	} {
		var p record.Point
		if setValue(&p, in); p.Value != want || p.Bad != "" {
			t.Errorf("%q: %+v, want %+v", in, p, want)
		}
	}
	for _, in := range []string{"NaN", "-nan", "inf", "+Infinity", "1e999", "-1e999"} {
		var p record.Point
		if setValue(&p, in); p.Bad != record.BadNotFinite || p.Value != (record.Value{}) {
			t.Errorf("%q: %+v, want not-finite", in, p)
		}
	}
}

func TestWholeNumbersStayExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := record.Int(rapid.Int64().Draw(t, "n"))
		var p record.Point
		r := record.Record{Points: []record.Point{{Name: "n", Value: want}}}
		text := string(r.AppendJSON(nil))
		start := len(text) - 2
		for text[start-1] != ':' {
			start--
		}
		if setValue(&p, text[start:len(text)-2]); p.Value != want {
			t.Fatalf("%s: got %+v, want %+v", text, p.Value, want)
		}
	})
}

func TestTheFirstRuleThatMatchesNamesTheStream(t *testing.T) {
	c := base(func(c *Config) {
		c.Rules = []RuleConfig{
			{Name: "weight", Match: `^W\s*(?P<weight>[-\d.]+)\s*(?P<unit>kg|g)( (?P<flag>S))?$`},
			{Name: "error", Match: `^E(?P<code>\d+)`},
			{Name: "ready", Match: `^OK$`},
		}
		c.Units = map[string]string{"weight": "kg"}
	})
	for line, want := range map[string]string{
		"W  -12.50 kg":   `weight,"values":{"weight":-12.5,"unit":"kg"},"units":{"weight":"kg"}`,
		"W 12 g S":       `weight,"values":{"weight":12,"unit":"g","flag":"S"},"units":{"weight":"kg"}`,
		"E07 overload":   `error,"values":{"code":7}`,
		"OK":             `ready`,
		"W .-. kg":       `weight,"values":{"weight":".-.","unit":"kg"},"units":{"weight":"kg"}`,
		"what?":          `?`,
		"W 12.5 kg\x00!": `?`,
	} {
		if got := read(t, c, line); got != want {
			t.Errorf("%q:\n got %s\nwant %s", line, got, want)
		}
	}
}

func TestCSVColumnsAreReadByPlace(t *testing.T) {
	c := base(func(c *Config) {
		c.Format, c.Columns, c.Units = FormatCSV, []string{"n", "", "temp", "note"}, map[string]string{"temp": "°C"}
	})
	for line, want := range map[string]string{
		`1,x,20.5,ok`:               `line,"values":{"n":1,"temp":20.5,"note":"ok"},"units":{"temp":"°C"}`,
		` 1 , x ,20.5, ok `:         `line,"values":{"n":1,"temp":20.5,"note":"ok"},"units":{"temp":"°C"}`,
		`1,"a,b",20.5,"say ""hi"""`: `line,"values":{"n":1,"temp":20.5,"note":"say \"hi\""},"units":{"temp":"°C"}`,
		`1,,20.5,`:                  `line,"values":{"n":1,"temp":20.5},"units":{"temp":"°C"},"bad":{"note":"format"}`,
		`1,x,20.5`:                  `?`,
		`1,x,20.5,ok,more`:          `?`,
		`1,"x,20.5,ok`:              `?`,
		`1,"x"y,20.5,ok`:            `?`,
		``:                          `?`,
	} {
		if got := read(t, c, line); got != want {
			t.Errorf("%q:\n got %s\nwant %s", line, got, want)
		}
	}
	c.Separator = ";"
	if got, want := read(t, c, "1;x;20,5;ok"), `line,"values":{"n":1,"temp":"20,5","note":"ok"},"units":{"temp":"°C"}`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
