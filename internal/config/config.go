// Package config reads the agent's TOML file into checked structs.
//
// Each package owns the Config struct of its table, with tags that say what its
// keys may be (see field) and, where those don't reach, a Validate method. This
// package puts them together into File, holds the document against them, and
// reports every mistake at once, with its place and what to write instead.
// Nothing is opened on the way, but the file itself.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile bounds the file, in bytes: some ten thousand devices.
const maxFile = 16 << 20

// Load reads the file at path. The error is that of reading it; what is wrong
// with its contents stands in Problems, and File is nil unless these are only
// warnings. lookup is os.LookupEnv, or what stands for it in a test; see the
// configuration page for what the environment may set.
func Load(path string, lookup func(name string) (string, bool)) (*File, Problems, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > maxFile {
		return nil, nil, fmt.Errorf("read %s: it is larger than %d MiB", path, maxFile>>20)
	}
	file, problems := Parse(path, string(text), lookup)
	return file, problems, nil
}

// Parse is Load for a text; name is where it came from.
func Parse(name, text string, lookup func(name string) (string, bool)) (*File, Problems) {
	text = strings.TrimPrefix(text, "\ufeff")
	src, err := newSource(name, text)
	r := &reporter{source: src, bad: make(map[string]bool)}
	if err != nil {
		r.say("", "%v", err)
		return nil, r.problems
	}
	raw, err := decodeTOML(text)
	if err != nil {
		return nil, Problems{syntaxProblem(src, err)}
	}
	applyEnvironment(raw, src, lookup)
	file := &File{source: src}
	d := newDecoder(r)
	d.table("", raw, reflect.ValueOf(file).Elem())
	file.secrets = d.secrets
	newChecker(r, file).all()
	problems := r.problems.sorted()
	if problems.Fatal() {
		return nil, problems
	}
	return file, problems
}

// decodeTOML is the library's Decode without its panics, which it keeps for
// what it takes for bugs of its own.
func decodeTOML(text string) (raw map[string]any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("can't be read as TOML: %v", p)
		}
	}()
	raw = make(map[string]any)
	_, err = toml.Decode(text, &raw)
	return raw, err
}

// syntaxProblem tells what is no TOML. The library stops at the first place, so
// there is one.
func syntaxProblem(src *source, err error) Problem {
	p := Problem{Source: src.name, Line: 1, Column: 1, Message: err.Error()}
	var syntax toml.ParseError
	if !errors.As(err, &syntax) {
		return p
	}
	p.Line, p.Column = src.place(syntax.Position.Start)
	p.Key = syntax.LastKey
	p.Message = "not TOML: " + strings.Replace(strings.TrimSuffix(syntax.Message, "."), "Key '", "the key '", 1) + advice(syntax.Message)
	return p
}

// advice says what to write instead of the commonest slips.
func advice(message string) string {
	for _, slip := range []struct{ sign, advice string }{
		{"invalid escape", `; write a text with backslashes in single quotes: '…'`},
		{"expected value but", `; write a text in quotes: "…"`},
		{"strings cannot contain newlines", "; the closing quote is missing"},
		{"has already been defined", "; remove one of the two"},
		{"expected '.' or '='", `; write key = value`},
	} {
		if strings.Contains(message, slip.sign) {
			return slip.advice
		}
	}
	return ""
}

// Summary says in one line what is configured.
func (f *File) Summary() string {
	polls := 0
	for i := range f.Devices {
		polls += len(f.Devices[i].Polls)
	}
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{
		{len(f.Links), "link"},
		{len(f.Listens), "listener"},
		{len(f.Devices), "device"},
		{polls, "poll"},
		{len(f.Routes), "route"},
		{len(f.Upstreams), "upstream"},
	} {
		switch {
		case part.n == 1:
			parts = append(parts, "1 "+part.what)
		case part.n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", part.n, part.what))
		}
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}
