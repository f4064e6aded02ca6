package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"pgregory.net/rapid"
)

func TestEveryKindOfKeyAndValueHasItsPlace(t *testing.T) {
	text, err := os.ReadFile("testdata/syntax.toml")
	if err != nil {
		t.Fatal(err)
	}
	src, err := newSource("syntax.toml", string(text))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		`bare`:                           "2:1",
		`"quoted key"`:                   "3:1",
		`"single 'no'"`:                  "4:1",
		`"".""`:                          "5:4",
		`"esc\"apedé"`:                   "6:1",
		`a.b.c`:                          "7:11",
		`a.b`:                            "7:7",
		`multi`:                          "10:1",
		`after_multi`:                    "15:1",
		`raw`:                            "16:1",
		`after_raw`:                      "18:1",
		`list`:                           "19:1",
		`list[0]`:                        "20:3",
		`list[1]`:                        "21:3",
		`list[1][1]`:                     "21:11",
		`list[2].x`:                      "23:5",
		`date`:                           "27:1",
		`table`:                          "29:1",
		`table.inner`:                    "30:1",
		`table.inner.deep.x`:             "31:14",
		`fruit[0]`:                       "33:1",
		`fruit[0].name`:                  "34:3",
		`fruit[0].variety[0].name`:       "36:5",
		`fruit[0].variety[1].name`:       "38:14",
		`fruit[0].physical.colour`:       "40:3",
		`fruit[1].variety[0].sizes[1].n`: "44:32",
		`"é"`:                            "46:1",
		`"é".after`:                      "47:1",
	} {
		at, ok := src.spans[path]
		line, column := src.place(at.key)
		if got := fmt.Sprintf("%d:%d", line, column); !ok || got != want {
			t.Errorf("%s stands at %s (known: %v), want %s", path, got, ok, want)
		}
	}
	checkPlaces(t, string(text))
}

func TestAMissingKeyIsPlacedAtTheTableThatLacksIt(t *testing.T) {
	src, err := newSource("x", "a = 1\n[[b]]\nc = { \"d.e[0]\" = 1 }\n")
	if err != nil {
		t.Fatal(err)
	}
	for path, line := range map[string]int{"b[0].x": 2, "b[0].c.x[3].y": 3, `b[0].c."d.x[0]"`: 3, "nothing": 1, "": 1} {
		if got, _ := src.place(src.find(path).key); got != line {
			t.Errorf("%s is placed in line %d, want %d", path, got, line)
		}
	}
}

func TestNestingBeyondTheLimitIsRefusedBeforeItCostsAStack(t *testing.T) {
	for _, text := range []string{
		"a = " + strings.Repeat("[", 1<<20),
		"a = " + strings.Repeat("{a=", 1<<20),
		"a = " + strings.Repeat("[", maxNesting+1) + strings.Repeat("]", maxNesting+1),
	} {
		_, problems := Parse("deep", text, noEnvironment)
		if !strings.Contains(problems.String(), "nested more than") {
			t.Errorf("%.20s…: %v", text, problems)
		}
	}
	if _, err := newSource("", "a = "+strings.Repeat("[", maxNesting)+strings.Repeat("]", maxNesting)); err != nil {
		t.Error(err)
	}
}

// Whatever the library accepts, each value in it has a place, and what stands
// there reads as that value; and nothing at all brings Parse down.
func FuzzPositions(f *testing.F) {
	for _, pattern := range []string{"testdata/*.toml", "testdata/bad/*.toml", "../../configs/*.toml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatal(pattern, err)
		}
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	for _, text := range []string{
		"", "\ufeffa=1", "a", "a=", "[", "[[", "[[a]", "[a.]", "a.=1", "=1", "a='", "a='''", "a=\"\"\"\\", "\"", "\"\\",
		"a=[", "a={", "a=[,", "a={,}", "a=[1,,2]", "a={b=1,}", "a={\n#c\nb=1,\n\n}", "a=\"\"\"x\"\"\"\"\"\nb=1",
		"a='''x'''''\nb=1", "a=1\r\nb=2\r\n", "[ a . 'b' ]\nc=1", "a=1979-05-27 07:32:00\nb=1", "\"\\U0001F600\"=1",
		"\"\\u00\"=1", "\"\\xe9\"=1", "[[a]]\n[x]\n[[x.a]]\n[y]\nx.a.b=1", "[[x.a]]\n[x]\na.b=1", "a=[[[]]]", "''=1", "[[a.b]]\n[a]\nc=1",
		"a.b=1\na.c=2\n[d.e]\n[d]\nf=1", "[[a]]\n[[a.b]]\n[[a.b]]\nc=1\n[[a]]\n[[a.b]]\nd=1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		Parse("fuzz", text, noEnvironment)
		checkPlaces(t, text)
	})
}

// checkPlaces holds the index against what the library decodes.
func checkPlaces(t rapid.TB, text string) {
	t.Helper()
	text = strings.TrimPrefix(text, "\ufeff")
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
		return // the library drops half a character here; it is no UTF-8
	}
	src, err := newSource("", text)
	if err != nil {
		return
	}
	raw, err := decodeTOML(text)
	if err != nil {
		return
	}
	checkPlace(t, src, "", raw)
}

func checkPlace(t rapid.TB, src *source, path string, raw any) {
	t.Helper()
	if path != "" && !src.has(path) {
		t.Fatalf("%s has no place in %q", path, src.text)
	}
	switch raw := raw.(type) {
	case map[string]any:
		for key, value := range raw {
			checkPlace(t, src, join(path, key), value)
		}
	case []map[string]any:
		for i, value := range raw {
			checkPlace(t, src, element(path, i), value)
		}
	case []any:
		for i, value := range raw {
			checkPlace(t, src, element(path, i), value)
		}
	default:
		again, err := decodeTOML("x = " + src.raw(path))
		if err != nil || !same(again["x"], raw) {
			t.Fatalf("%s is %v, and %v (%v) where it is placed, %q in %q", path, raw, again["x"], err, src.raw(path), src.text)
		}
	}
}

func same(a, b any) bool {
	if x, ok := a.(time.Time); ok {
		y, ok := b.(time.Time)
		return ok && x.Equal(y)
	}
	return reflect.DeepEqual(a, b) || a != a && b != b // NaN
}

func TestWhateverIsEncodedHasItsPlaces(t *testing.T) {
	key := rapid.OneOf(rapid.StringMatching(`[a-z]{1,2}`), rapid.StringMatching(`[a-z. "'\[\]#=\\]{0,4}`))
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		kinds := []*rapid.Generator[any]{
			rapid.Int64().AsAny(), rapid.Bool().AsAny(), rapid.StringMatching(`[a-z\n"'\\#\]},]{0,8}`).AsAny(),
		}
		if depth > 0 {
			inner := rapid.Deferred(func() *rapid.Generator[any] { return value(depth - 1) })
			table := rapid.MapOfN(key, inner, 0, 3)
			kinds = append(kinds, table.AsAny(), rapid.SliceOfN(table, 1, 3).AsAny(), rapid.SliceOfN(rapid.Int64(), 0, 3).AsAny())
		}
		return rapid.OneOf(kinds...)
	}
	rapid.Check(t, func(rt *rapid.T) {
		document := rapid.MapOfN(key, value(3), 0, 4).Draw(rt, "document")
		text, err := toml.Marshal(document)
		if err != nil {
			return
		}
		checkPlaces(rt, string(text))
	})
}
