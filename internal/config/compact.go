package config

import (
	"reflect"
	"strings"
)

// compact makes the texts and lists of a File, many in one piece of memory. One by
// one they would be scattered among all that reading the file throws away, and
// keep the pages around them: with ten thousand devices three times their size.
type compact struct {
	page  *strings.Builder               // has room for more texts
	texts map[string]string              // so far: each is kept once
	rest  map[reflect.Type]reflect.Value // of the piece that lists are cut from, by their type
	piece map[reflect.Type]int           // how many elements it had
}

// Bounds of a piece: bytes of text, and elements of lists.
const (
	pageSize  = 4 << 10
	pieceSize = 256
)

func newCompact() *compact {
	return &compact{
		page: new(strings.Builder), texts: make(map[string]string),
		rest: make(map[reflect.Type]reflect.Value), piece: make(map[reflect.Type]int),
	}
}

// text is a copy of s, which is a piece of the whole file and would keep it.
func (c *compact) text(s string) string {
	kept, known := c.texts[s]
	if known {
		return kept
	}
	if c.page.Cap()-c.page.Len() < len(s) {
		c.page = new(strings.Builder)
		c.page.Grow(max(pageSize, len(s)))
	}
	// A Builder with room never moves what it has.
	start := c.page.Len()
	c.page.WriteString(s)
	kept = c.page.String()[start:]
	c.texts[kept] = kept
	return kept
}

// list is a slice of type t with n zero elements. Its elements never move.
func (c *compact) list(t reflect.Type, n int) reflect.Value {
	rest, ok := c.rest[t]
	if !ok || rest.Len() < n {
		// As large as all before, so that a small file takes little.
		c.piece[t] = min(max(2*c.piece[t], n), max(pieceSize, n))
		rest = reflect.MakeSlice(t, c.piece[t], c.piece[t])
	}
	c.rest[t] = rest.Slice(n, rest.Len())
	return rest.Slice3(0, n, n)
}
