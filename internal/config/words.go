package config

import (
	"fmt"
	"strings"
)

// longestQuote is how much of a value is repeated in a message; of a longer
// one, the place says enough.
const longestQuote = 60

// label begins a message about path: its key with its value, as written.
func (r *reporter) label(path string) string {
	at, there := r.spans[path]
	key := lastKey(path)
	if path == "" {
		return r.nameOf(path)
	}
	if !there {
		return key
	}
	if at.header {
		return r.nameOf(path)
	}
	raw := r.raw(path)
	short := raw != "" && len(raw) <= longestQuote && raw[0] != '{' && raw[0] != '[' && !strings.Contains(raw, "\n")
	switch {
	case strings.HasSuffix(path, "]") && short:
		return raw + " in " + lastKey(parent(path))
	case strings.HasSuffix(path, "]"):
		return r.nameOf(path)
	case short:
		return key + " = " + raw
	}
	return key
}

// nameOf names the table at path, with the name that was given to it.
func (r *reporter) nameOf(path string) string {
	name := ""
	for _, key := range []string{"id", "name"} {
		if raw := r.raw(join(path, key)); raw != "" && len(raw) <= longestQuote {
			name = " " + raw
		}
	}
	list := strings.HasSuffix(path, "]")
	switch {
	case path == "":
		return "the file"
	case r.spans[path].header && list:
		return "[[" + plain(path) + "]]" + name
	case r.spans[path].header:
		return "[" + plain(path) + "]"
	case list && name != "":
		return "the entry" + name + " of " + lastKey(parent(path))
	case list:
		return "an entry of " + lastKey(parent(path))
	}
	return lastKey(path)
}

// plain is path without the places in lists: device.poll.every.
func plain(path string) string {
	var b strings.Builder
	skip := false
	for _, c := range path {
		if c == '[' {
			skip = true
		}
		if !skip {
			b.WriteRune(c)
		}
		if c == ']' {
			skip = false
		}
	}
	return b.String()
}

// lastKey is the key that path ends with.
func lastKey(path string) string {
	p := plain(path)
	return p[strings.LastIndexByte(p, '.')+1:]
}

// list joins values to words: a, b or c.
func list(values []string, last string) string {
	if len(values) < 2 {
		return strings.Join(values, "")
	}
	end := len(values) - 1
	return strings.Join(values[:end], ", ") + " " + last + " " + values[end]
}

// didYouMean proposes the nearest of known, or says what there is.
func didYouMean(word string, known []string, none string) string {
	if near := nearest(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	var quoted []string
	for _, k := range known {
		if k != "" {
			quoted = append(quoted, `"`+k+`"`)
		}
	}
	const few = 12
	switch n := len(quoted); {
	case n == 0:
		return none
	case n == 1:
		return "there is " + quoted[0]
	case n > few:
		return fmt.Sprintf("there are %s and %d more", strings.Join(quoted[:few], ", "), n-few)
	}
	return "there are " + list(quoted, "and")
}

// manyNames is how many names are compared with a wrong one: a file with ten
// thousand of each must not take a minute.
const manyNames = 500

// nearest returns the entry of known that word was probably meant to be, or
// "". A third of the letters may be wrong.
func nearest(word string, known []string) string {
	best, limit := "", max(1, len(word)/3)
	for _, k := range known[:min(len(known), manyNames)] {
		if d := distance(strings.ToLower(word), strings.ToLower(k), limit+1); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

// distance counts the letters to add, drop, change or swap with their neighbour
// to get from a to b; above limit it is not exact.
func distance(a, b string, limit int) int {
	x, y := []rune(a), []rune(b)
	if diff := len(x) - len(y); diff > limit || -diff > limit {
		return limit + 1
	}
	// Rows of the optimal string alignment: two back, one back, this one.
	back, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], back[j-2]+1)
			}
		}
		back, last, row = last, row, back
	}
	return last[len(y)]
}
