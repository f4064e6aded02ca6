package config

import (
	"fmt"
	"maps"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// source is a document and where each of its keys stands: what the TOML
// library does not tell. A key is named by its path, such as
// `device[1].poll[0].every`; see join and element.
type source struct {
	name  string
	text  string
	lines []int // offset of the first byte of each line
	spans map[string]span
}

// span is where a key and its value stand, as byte offsets.
type span struct {
	key      int    // the key's first byte, or the header's bracket
	from, to int    // the value's text; empty for a table with a header
	header   bool   // written as [table] or [[table]]
	env      string // the environment variable that the value came from instead
	value    string // and what it says, quoted
}

// maxNesting bounds lists within lists, so that no document exhausts the stack
// of whoever reads it.
const maxNesting = 64

// newSource indexes text. It accepts at least what the TOML library accepts; of
// a document with a syntax error it finds the keys up to about there. It fails
// only when lists or inline tables are nested too deep.
func newSource(name, text string) (*source, error) {
	s := &source{name: name, text: text, lines: []int{0}, spans: make(map[string]span)}
	for i := range len(text) {
		if text[i] == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	x := indexer{source: s, tables: make(map[string]int)}
	x.document()
	if x.tooDeep {
		return s, fmt.Errorf("lists and tables are nested more than %d deep", maxNesting)
	}
	return s, nil
}

// place turns an offset into a line and a column, both from 1; the column
// counts characters, as editors do.
func (s *source) place(offset int) (line, column int) {
	offset = min(max(offset, 0), len(s.text))
	line = sort.SearchInts(s.lines, offset+1)
	return line, utf8.RuneCountInString(s.text[s.lines[line-1]:offset]) + 1
}

// find returns the span of path, or of the nearest table around it that is
// there; the document itself begins at 0.
func (s *source) find(path string) span {
	for path != "" {
		if at, ok := s.spans[path]; ok {
			return at
		}
		path = parent(path)
	}
	return span{}
}

// has tells whether path was written, in the file or the environment.
func (s *source) has(path string) bool {
	_, ok := s.spans[path]
	return ok
}

// alias makes what is known of path known of other, too.
func (s *source) alias(path, other string) {
	for known, at := range maps.Clone(s.spans) {
		if rest, below := strings.CutPrefix(known, path); below && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			s.spans[other+rest] = at
		}
	}
}

// raw returns the text of the value at path as it was written.
func (s *source) raw(path string) string {
	at := s.spans[path]
	if at.env != "" {
		return at.value
	}
	return s.text[at.from:at.to]
}

// join is the path of key in the table at path.
func join(path, key string) string {
	if !isBare(key) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// element is the path of entry i of the list at path.
func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// parent is the path of the table or list that path stands in.
func parent(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

func isBare(key string) bool {
	for i := range len(key) {
		if !isBareByte(key[i]) {
			return false
		}
	}
	return key != ""
}

func isBareByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

// indexer walks a document once. It leaves judging the syntax to the TOML
// library, and ends at the first thing it can't read.
type indexer struct {
	*source
	pos     int
	depth   int
	tooDeep bool
	tables  map[string]int // entries so far of each list that [[headers]] make
}

func (x *indexer) document() {
	table := ""
	for x.blank(); x.pos < len(x.text); x.blank() {
		if x.peek() == '[' {
			table = x.tableHeader()
			continue
		}
		if !x.pair(x.resolve, table) {
			return
		}
	}
}

// tableHeader reads [a.b] or [[a.b]] and returns the path of what follows.
func (x *indexer) tableHeader() string {
	start, list := x.pos, strings.HasPrefix(x.text[x.pos:], "[[")
	x.pos++
	if list {
		x.pos++
	}
	keys, _ := x.dotted()
	for x.peek() == ']' {
		x.pos++
	}
	path := ""
	for i, key := range keys {
		path = join(path, key)
		last := i == len(keys)-1
		if last && list {
			x.tables[path]++
		}
		x.note(path, span{key: start, header: true})
		if n := x.tables[path]; n > 0 {
			path = element(path, n-1)
			x.note(path, span{key: start, header: true})
		}
		if last {
			// [a.b] before [a]: the header proper is where [a] belongs.
			x.spans[path] = span{key: start, header: true}
		}
	}
	return path
}

// resolve is the path of key at the top level or below a header: a list of
// tables means its last entry.
func (x *indexer) resolve(path, key string) string {
	path = join(path, key)
	if n := x.tables[path]; n > 0 {
		return element(path, n-1)
	}
	return path
}

// pair reads key = value into the table at path; step finds the path of each
// part of a dotted key. It returns false where no pair can be read.
func (x *indexer) pair(step func(path, key string) string, path string) bool {
	keys, starts := x.dotted()
	if len(keys) == 0 || x.peek() != '=' {
		return false
	}
	for i, key := range keys {
		path = step(path, key)
		x.note(path, span{key: starts[i]})
	}
	x.pos++
	x.space()
	from := x.pos
	x.value(path)
	x.spans[path] = span{key: starts[len(starts)-1], from: from, to: x.pos}
	return true
}

// value reads the value of path.
func (x *indexer) value(path string) {
	switch c := x.peek(); c {
	case '"', '\'':
		if !x.multiline(c) {
			x.quoted()
		}
	case '[':
		x.enclosed(']', func(i int) bool {
			entry := element(path, i)
			from := x.pos
			x.value(entry)
			x.spans[entry] = span{key: from, from: from, to: x.pos}
			return x.pos > from
		})
	case '{':
		x.enclosed('}', func(int) bool { return x.pair(join, path) })
	default: // a number, true, a date, which may contain a space
		end := strings.IndexAny(x.text[x.pos:], ",]}#\r\n")
		if end < 0 {
			end = len(x.text) - x.pos
		}
		x.pos += len(strings.TrimRight(x.text[x.pos:x.pos+end], " \t"))
	}
}

// enclosed reads what stands between brackets; entry reads the i-th part and
// tells whether it could.
func (x *indexer) enclosed(end byte, entry func(i int) bool) {
	if x.depth++; x.depth > maxNesting {
		x.tooDeep = true
		x.pos = len(x.text)
		return
	}
	defer func() { x.depth-- }()
	x.pos++
	for i := 0; ; i++ {
		x.blank()
		if x.peek() == end {
			x.pos++
			return
		}
		if !entry(i) {
			return
		}
		x.blank()
		if x.peek() == ',' {
			x.pos++
		}
	}
}

// dotted reads a.b."c d" and where each part begins.
func (x *indexer) dotted() (keys []string, starts []int) {
	for {
		x.space()
		start := x.pos
		var key string
		if c := x.peek(); c == '"' || c == '\'' {
			key = unquote(x.quoted())
		} else {
			for x.pos < len(x.text) && isBareByte(x.text[x.pos]) {
				x.pos++
			}
			key = x.text[start:x.pos]
		}
		if x.pos == start {
			return keys, starts
		}
		keys, starts = append(keys, key), append(starts, start)
		x.space()
		if x.peek() != '.' {
			return keys, starts
		}
		x.pos++
	}
}

// quoted reads a string of one line, with its quotes.
func (x *indexer) quoted() string {
	start, quote := x.pos, x.text[x.pos]
	for x.pos++; x.pos < len(x.text) && x.text[x.pos] != '\n'; x.pos++ {
		switch c := x.text[x.pos]; {
		case c == '\\' && quote == '"':
			x.pos++
		case c == quote:
			x.pos++
			return x.text[start:x.pos]
		}
	}
	x.pos = min(x.pos, len(x.text))
	return x.text[start:x.pos]
}

// multiline reads a string between triple quotes, if one begins here. Up to two
// quotes may stand just before the closing three.
func (x *indexer) multiline(quote byte) bool {
	triple := strings.Repeat(string(quote), 3)
	if !strings.HasPrefix(x.text[x.pos:], triple) {
		return false
	}
	for x.pos += 3; x.pos < len(x.text); x.pos++ {
		if x.text[x.pos] == '\\' && quote == '"' {
			x.pos++
			continue
		}
		if strings.HasPrefix(x.text[x.pos:], triple) {
			x.pos += 3
			for range 2 {
				if x.peek() == quote {
					x.pos++
				}
			}
			return true
		}
	}
	x.pos = min(x.pos, len(x.text))
	return true
}

// note remembers the first place of path.
func (x *indexer) note(path string, at span) {
	if _, ok := x.spans[path]; !ok {
		x.spans[path] = at
	}
}

// peek returns the next byte, 0 at the end.
func (x *indexer) peek() byte {
	if x.pos < len(x.text) {
		return x.text[x.pos]
	}
	return 0
}

// space skips blanks within a line.
func (x *indexer) space() {
	for x.peek() == ' ' || x.peek() == '\t' {
		x.pos++
	}
}

// blank skips blanks, line ends and comments.
func (x *indexer) blank() {
	for x.pos < len(x.text) {
		switch x.text[x.pos] {
		case ' ', '\t', '\r', '\n':
			x.pos++
		case '#':
			end := strings.IndexByte(x.text[x.pos:], '\n')
			if end < 0 {
				end = len(x.text) - x.pos
			}
			x.pos += end
		default:
			return
		}
	}
}

// unquote reads a quoted key. What is no good escape stays as it is: such a
// document has been refused by the library.
func unquote(s string) string {
	if len(s) < 2 || s[len(s)-1] != s[0] {
		return s
	}
	body := s[1 : len(s)-1]
	if s[0] == '\'' || !strings.Contains(body, `\`) {
		return body
	}
	var b strings.Builder
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' || i+1 == len(body) {
			b.WriteByte(body[i])
			continue
		}
		i++
		digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[body[i]]
		if digits == 0 || i+digits >= len(body) {
			b.WriteString(escaped(body[i]))
			continue
		}
		if code, err := strconv.ParseUint(body[i+1:i+1+digits], 16, 32); err == nil {
			b.WriteRune(rune(code))
		}
		i += digits
	}
	return b.String()
}

// escaped is what a backslash and c stand for (TOML 1.1, String).
func escaped(c byte) string {
	if i := strings.IndexByte(`btnfre"\`, c); i >= 0 {
		return "\b\t\n\f\r\x1b\"\\"[i : i+1]
	}
	return `\` + string(c)
}
