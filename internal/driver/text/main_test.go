package text

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// base is a configuration with its defaults.
func base(change func(*Config)) Config {
	c := Config{Delimiter: "\n", MaxLine: 1024, Format: FormatRules, Separator: ",", Stream: "line"}
	change(&c)
	return c
}

// read parses one line and returns its stream and its values as JSON has them;
// "?" when it is not understood.
func read(t testing.TB, c Config, line string) string {
	t.Helper()
	p, err := newParser(&c)
	if err != nil {
		t.Fatal(err)
	}
	return readWith(p, line)
}

func readWith(p parser, line string) string {
	stream, points, ok := p.parse([]byte(line), nil)
	if !ok {
		return "?"
	}
	r := record.Record{Stream: stream, Points: points}
	text := string(r.AppendJSON(nil))
	_, values, _ := strings.Cut(text, `"quality":"good"`)
	return stream + strings.TrimSuffix(values, "}")
}
