package text

import (
	"strings"
	"testing"
	"time"
)

func TestConfigNamesTheKeyThatIsWrong(t *testing.T) {
	rule := []RuleConfig{{Name: "weight", Match: `(?P<w>\d+)`}}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"rules":             {func(c *Config) { c.Rules, c.Units = rule, map[string]string{"w": "kg"} }, ""},
		"csv":               {func(c *Config) { c.Format, c.Columns = FormatCSV, []string{"a", "", "b"} }, ""},
		"csv with tabs":     {func(c *Config) { c.Format, c.Columns, c.Separator = FormatCSV, []string{"a"}, "\t" }, ""},
		"nmea":              {func(c *Config) { c.Format, c.Units = FormatNMEA, map[string]string{"any": "m"} }, ""},
		"idle":              {func(c *Config) { c.Rules, c.Delimiter, c.Idle = rule, "", time.Second }, ""},
		"no end of a line":  {func(c *Config) { c.Rules, c.Delimiter = rule, "" }, "delimiter is empty"},
		"no rules":          {func(c *Config) {}, "rules is empty"},
		"bad expression":    {func(c *Config) { c.Rules = []RuleConfig{{"a", `(`}} }, "rules[0].match is no regular expression"},
		"bad group":         {func(c *Config) { c.Rules = []RuleConfig{{"a", `(?P<_x>.)`}} }, `rules[0].match group "_x"`},
		"same name":         {func(c *Config) { c.Rules = append(rule, rule...) }, "rules[1].name"},
		"unknown unit":      {func(c *Config) { c.Rules, c.Units = rule, map[string]string{"x": "kg"} }, "units.x there is no such point; there are w"},
		"rules with csv":    {func(c *Config) { c.Format, c.Columns, c.Rules = FormatCSV, []string{"a"}, rule }, "rules does not go with"},
		"columns with nmea": {func(c *Config) { c.Format, c.Columns = FormatNMEA, []string{"a"} }, "columns does not go with"},
		"no columns":        {func(c *Config) { c.Format, c.Columns = FormatCSV, []string{""} }, "columns names no column"},
		"same column":       {func(c *Config) { c.Format, c.Columns = FormatCSV, []string{"a", "a"} }, `columns[1] "a" stands there twice`},
		"bad column":        {func(c *Config) { c.Format, c.Columns = FormatCSV, []string{"a/b"} }, "columns[0] contains '/'"},
		"long separator":    {func(c *Config) { c.Format, c.Columns, c.Separator = FormatCSV, []string{"a"}, ", " }, "separator"},
		"no separator":      {func(c *Config) { c.Format, c.Columns, c.Separator = FormatCSV, []string{"a"}, "" }, "separator"},
	} {
		cfg := base(c.change)
		var got []string
		cfg.Validate(func(key, problem string) { got = append(got, key+" "+problem) })
		if joined := strings.Join(got, "\n"); c.want == "" && joined != "" || !strings.HasPrefix(joined, c.want) || len(got) > 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
}
