package pattern

import (
	"path"
	"testing"

	"pgregory.net/rapid"
)

func TestAPatternFitsWhatItSays(t *testing.T) {
	for _, c := range []struct {
		patterns List
		name     string
		fits     bool
	}{
		{nil, "anything", true},
		{List{"boiler-*"}, "boiler-1", true},
		{List{"boiler-*"}, "pump-1", false},
		{List{"pump-?", "boiler-[0-9]"}, "boiler-7", true},
		{List{`\*`}, "*", true},
		{List{`\*`}, "x", false},
	} {
		if got := c.patterns.Match(c.name); got != c.fits {
			t.Errorf("%q fits %q: %v", c.name, c.patterns, got)
		}
	}
}

func globs() *rapid.Generator[string] {
	return rapid.StringMatching(`([ab*?]|\[\^?[ab]\]|\[a-b\]|\[\^a-b\]|\\[a*]){0,5}`)
}

func TestPatternsThatANameFitsBothOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := globs().Draw(t, "a"), globs().Draw(t, "b")
		name := rapid.StringMatching(`[abc*]{0,5}`).Draw(t, "name")
		if (List{a}).Match(name) && (List{b}).Match(name) && !globsOverlap(a, b) {
			t.Fatalf("%q fits both %q and %q", name, a, b)
		}
	})
}

func TestPatternsThatOverlapHaveANameInCommon(t *testing.T) {
	// Every text of up to five of these characters: enough for patterns of up
	// to three steps on each side, whose stars have to stand for two at most.
	var names []string
	for grow := []string{""}; len(grow[0]) <= 5; {
		names = append(names, grow...)
		var longer []string
		for _, name := range grow {
			for _, c := range "abc*" {
				longer = append(longer, name+string(c))
			}
		}
		grow = longer
	}
	short := rapid.StringMatching(`([ab*?]|\[\^?[ab]\]|\\[*]){0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := short.Draw(t, "a"), short.Draw(t, "b")
		if !globsOverlap(a, b) {
			return
		}
		for _, name := range names {
			if (List{a}).Match(name) && (List{b}).Match(name) {
				return
			}
		}
		t.Fatalf("%q and %q have no name in common", a, b)
	})
}

func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"", "*", "a[", "[", "[]", "[^", "[a-", "[]a]", `\`, `[\`, `[\]]`, "[z-a]", "[a-b-c]", "boiler-*[0-9]?"} {
		f.Add(seed, "boiler-1")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		steps, err := parse(pattern)
		if _, bad := path.Match(pattern, ""); (bad != nil) != (err != nil) {
			t.Fatalf("%q: %v, and path.Match says %v", pattern, err, bad)
		}
		if fits, bad := path.Match(pattern, name); err == nil && bad == nil && fits && !(List{`*`}).Match(name) {
			t.Fatalf("%q fits %q, and * does not (%v)", pattern, name, steps)
		}
		globsOverlap(pattern, name)
	})
}
