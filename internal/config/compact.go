package config

import (
	"reflect"
	"strings"
)

// compact makes the texts and lists of a File: each once for all that say the same,
// and many in one piece of memory. One by one they would be scattered among all that
// reading the file throws away, and keep the pages around them: with ten thousand
// devices several times their size.
type compact struct {
	page  *strings.Builder  // has room for more texts
	texts map[string]string // so far
	lists map[reflect.Type]*lists
}

// lists are cut from pieces, those of one type from the same.
type lists struct {
	piece  int           // how many elements the newest piece has
	rest   reflect.Value // of it
	before reflect.Value // what rest was before the last list was cut off
	last   reflect.Value // list that was different from the one before
}

// Bounds of a piece: bytes of text, and elements of lists.
const (
	pageSize  = 4 << 10
	pieceSize = 256
)

func newCompact() *compact {
	return &compact{page: new(strings.Builder), texts: make(map[string]string), lists: make(map[reflect.Type]*lists)}
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
	of := c.lists[t]
	if of == nil {
		of = &lists{rest: reflect.MakeSlice(t, 0, 0), last: reflect.Zero(t)}
		c.lists[t] = of
	}
	if of.rest.Len() < n {
		// As large as all before, so that a small file takes little.
		of.piece = min(max(2*of.piece, n), max(pieceSize, n))
		of.rest = reflect.MakeSlice(t, of.piece, of.piece)
	}
	of.before = of.rest
	of.rest = of.rest.Slice(n, of.rest.Len())
	return of.before.Slice3(0, n, n)
}

// again is the list before if made, the newest list of its type, says the same: of
// ten thousand devices most are alike, and share their polls and points. The memory
// of made is used again then.
func (c *compact) again(made reflect.Value) reflect.Value {
	of := c.lists[made.Type()]
	if !reflect.DeepEqual(made.Interface(), of.last.Interface()) {
		of.last = made
		return made
	}
	made.Clear()
	of.rest = of.before
	return of.last
}
