package command

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/mcp-edge/edge-agent/record"
)

func TestAValueIsPlainJSONAndWholeNumbersStayExact(t *testing.T) {
	for text, want := range map[string]record.Value{
		`true`:                 record.Bool(true),
		`false`:                record.Bool(false),
		`21.5`:                 record.Float64(21.5),
		`1e3`:                  record.Float64(1000),
		`-7`:                   record.Int(-7),
		`9007199254740993`:     record.Int(9007199254740993),
		`-9223372036854775808`: record.Int(math.MinInt64),
		`18446744073709551615`: record.Uint(math.MaxUint64),
		`"a \"text\" ° "`:      record.String(`a "text" ° `),
		`""`:                   record.String(""),
	} {
		var v Value
		if err := json.Unmarshal([]byte(text), &v); err != nil || v.Value != want {
			t.Errorf("%s: %+v, %v", text, v, err)
			continue
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		var same Value
		if err := json.Unmarshal(again, &same); err != nil || text != `1e3` && same != v {
			t.Errorf("%s came back as %s: %v", text, again, err)
		}
	}
}

func TestWhatIsNoValueIsRefusedInWords(t *testing.T) {
	for text, want := range map[string]string{
		`null`:                 "null",
		`[1]`:                  "list",
		`{"a":1}`:              "object",
		`18446744073709551616`: "whole numbers go from -9223372036854775808 to 18446744073709551615",
		`1e999`:                "too large",
	} {
		var m map[string]Value
		err := json.Unmarshal([]byte(`{"v":`+text+`}`), &m)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, v := range []record.Value{{}, record.Float64(math.NaN()), record.Float32(float32(math.Inf(1)))} {
		if b, err := json.Marshal(Value{v}); err == nil {
			t.Errorf("%+v became %s", v, b)
		}
	}
}
