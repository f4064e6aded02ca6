// Package pattern has the globs by which routes and tokens choose devices.
package pattern

import (
	"errors"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// List is a list of globs as path.Match has them; a name fits when it fits one.
// No globs at all fit every name.
type List []string

// Match tells whether name fits.
func (l List) Match(name string) bool {
	return len(l) == 0 || slices.ContainsFunc(l, func(glob string) bool {
		fits, err := path.Match(glob, name)
		return err == nil && fits
	})
}

// Overlaps tells whether some name could fit both l and m.
func (l List) Overlaps(m List) bool {
	for _, a := range l.orAll() {
		for _, b := range m.orAll() {
			if globsOverlap(a, b) {
				return true
			}
		}
	}
	return false
}

func (l List) orAll() List {
	if len(l) == 0 {
		return List{"*"}
	}
	return l
}

// IsGlob tells whether glob may fit more than one name.
func IsGlob(glob string) bool { return strings.ContainsAny(glob, `*?[\`) }

// Check says what is wrong with a glob; the error goes on from its text.
func Check(glob string) error {
	_, err := parse(glob)
	return err
}

// step is what one position of a glob takes: any text, or one character that is
// in the ranges, or with except in none of them.
type step struct {
	star   bool
	except bool
	ranges [][2]rune
}

// has tells whether s takes the character c. A name contains no slash, and no
// wildcard of path.Match takes one.
func (s step) has(c rune) bool {
	in := slices.ContainsFunc(s.ranges, func(r [2]rune) bool { return r[0] <= c && c <= r[1] })
	return in != s.except && c != '/' && 0 <= c && c <= utf8.MaxRune
}

// meets tells whether some character suits both. If one does, there is one at
// or beside an end of a range, or it is the lowest of all.
func (s step) meets(t step) bool {
	ranges := slices.Concat(s.ranges, t.ranges)
	candidates := append(make([]rune, 0, 2+4*len(ranges)), 1, '/'+1)
	for _, r := range ranges {
		candidates = append(candidates, r[0], r[1], r[1]+1, r[1]+2)
	}
	return slices.ContainsFunc(candidates, func(c rune) bool { return s.has(c) && t.has(c) })
}

var errPattern = errors.New("is no pattern: * is any text, ? any character, [a-z] one of these, and a backslash takes the next as it is")

// parse reads a pattern that path.Match accepts.
func parse(glob string) ([]step, error) {
	if _, err := path.Match(glob, ""); err != nil {
		return nil, errPattern
	}
	var steps []step
	for rest := []rune(glob); len(rest) > 0; {
		c := rest[0]
		rest = rest[1:]
		switch c {
		case '*':
			steps = append(steps, step{star: true})
		case '?':
			steps = append(steps, step{except: true})
		case '[':
			var s step
			s, rest = parseClass(rest)
			steps = append(steps, s)
		default:
			if c == '\\' && len(rest) > 0 {
				c, rest = rest[0], rest[1:]
			}
			steps = append(steps, step{ranges: [][2]rune{{c, c}}})
		}
	}
	return steps, nil
}

// parseClass reads what follows "[" of a good pattern.
func parseClass(rest []rune) (step, []rune) {
	var s step
	if len(rest) > 0 && rest[0] == '^' {
		s.except, rest = true, rest[1:]
	}
	next := func() rune {
		if len(rest) > 1 && rest[0] == '\\' {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return 0
		}
		c := rest[0]
		rest = rest[1:]
		return c
	}
	for len(rest) > 0 && (rest[0] != ']' || len(s.ranges) == 0) {
		low := next()
		high := low
		if len(rest) > 0 && rest[0] == '-' {
			rest = rest[1:]
			high = next()
		}
		s.ranges = append(s.ranges, [2]rune{low, high})
	}
	return s, rest[min(1, len(rest)):]
}

// globsOverlap tells whether some name fits both patterns; a bad one fits none.
func globsOverlap(a, b string) bool {
	x, errX := parse(a)
	y, errY := parse(b)
	if errX != nil || errY != nil {
		return false
	}
	// reach[i][j]: x[i:] and y[j:] have a text in common. From the end forward.
	reach := make([][]bool, len(x)+1)
	for i := range reach {
		reach[i] = make([]bool, len(y)+1)
	}
	for i := len(x); i >= 0; i-- {
		for j := len(y); j >= 0; j-- {
			endX, endY := i == len(x), j == len(y)
			switch {
			case endX && endY:
				reach[i][j] = true
			case !endX && x[i].star:
				reach[i][j] = reach[i+1][j] || !endY && reach[i][j+1]
			case !endY && y[j].star:
				reach[i][j] = reach[i][j+1] || !endX && reach[i+1][j]
			case !endX && !endY:
				reach[i][j] = x[i].meets(y[j]) && reach[i+1][j+1]
			}
		}
	}
	return reach[0][0]
}
