package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mcp-edge/edge-agent/internal/pattern"
)

//go:generate go test . -run TestTheConfigurationPageIsUpToDate -update

const docsIntro = "<!-- Made from the code by: go generate ./internal/config -->\n\n" + `# Configuration

One TOML 1.1 file. ` + "`edge-agent check FILE`" + ` reads it without opening anything, and prints every mistake at once with its
place and what to write instead; ` + "`edge-agent run -c FILE`" + ` does the same before it starts. The files in
[configs](../configs) are complete examples.

- A **duration** is a string with a unit: ` + "`\"500ms\"`, `\"5s\"`, `\"1m30s\"`, `\"24h\"`" + `. A bare number is refused.
- A **size** is a string with a binary unit, ` + "`\"512KiB\"`, `\"1GiB\"`" + `, or a whole number of bytes.
- A **name** (agent, device, link, poll, point, …) has at most 64 bytes, no control character, none of ` + "`/ + #`" + `, and
  does not begin with ` + "`_` or `$`" + `.
- A **secret** is never in the file: ` + "`\"file:/path\"`" + ` names a file that holds it (a line end after it is left out), and
  ` + "`\"env:NAME\"`" + ` an environment variable. ` + "`run`" + ` reads it at start; ` + "`check`" + ` does not, so that a file can be checked
  on another machine.
- An address beyond loopback is refused, unless peers must prove who they are and nobody can listen in (` + "`tls`" + ` with ` + "`client_ca`" + ` or
  with ` + "`auth`" + `), or ` + "`insecure = true`" + ` stands beside it. ` + "`edge-agent cert`" + ` makes certificates for a first set-up.
- Warnings don't keep the agent from running: a device that no route takes, an upstream that nothing leads to, a Modbus
  device without a poll, two devices with one Modbus unit, a pattern that fits no device.

What a container sets comes from the environment, and goes before the file. An empty variable counts as not set.

`

func TestTheConfigurationPageIsUpToDate(t *testing.T) {
	golden(t, "../../docs/configuration.md", page(t))
}

// page writes docs/configuration.md.
func page(t *testing.T) string {
	t.Helper()
	c := comments{docs: make(map[string]string), read: make(map[string]bool)}
	var b strings.Builder
	b.WriteString(docsIntro)
	b.WriteString("| Variable | Key |\n|---|---|\n")
	for _, o := range overrides() {
		fmt.Fprintf(&b, "| `%s` | `%s` of `[%s]` |\n", o.name, o.key, o.table)
	}
	all := tables()
	for _, section := range all {
		fmt.Fprintf(&b, "\n## %s\n\n", heading(section.title))
		fmt.Fprintf(&b, "%s\n\n", c.of(t, section.note.owner, section.note.name))
		b.WriteString("| Key | Type | Default | Values | Meaning |\n|---|---|---|---|---|\n")
		for _, f := range fieldsOf(section.typ) {
			if meaning := elsewhere(all, section, f); meaning != "" {
				fmt.Fprintf(&b, "| `%s` | %s |  |  | %s |\n", f.key, kindOf(f), meaning)
				continue
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.key, kindOf(f), presetOf(f), values(f), cell(c.of(t, f.owner, f.name)))
		}
	}
	b.WriteString("\n## Not there yet\n\nThese are refused, with a word on what to do until they come.\n\n| Table | Keys and values |\n|---|---|\n")
	writeLater(&b, "the file", "")
	for _, section := range all {
		writeLater(&b, heading(section.title), section.key)
	}
	return b.String()
}

// writeLater lists what is planned for the table at path.
func writeLater(b *strings.Builder, title, path string) {
	var keys []string
	for _, later := range slices.Sorted(maps.Keys(notYet())) {
		key, value, isValue := strings.Cut(later, "=")
		dot := strings.LastIndexByte(key, '.')
		if key[:max(dot, 0)] != path {
			continue
		}
		key = key[dot+1:]
		if isValue {
			if _, err := strconv.Atoi(value); err != nil {
				value = quote(value)
			}
			key += " = " + value
		}
		keys = append(keys, "`"+key+"`")
	}
	if len(keys) > 0 {
		fmt.Fprintf(b, "| %s | %s |\n", title, strings.Join(keys, ", "))
	}
}

// elsewhere points to the section of a key that is a table.
func elsewhere(all []table, in table, f field) string {
	for _, t := range all {
		if t.key == join(in.key, f.key) {
			title, _, _ := strings.Cut(t.title, " of ")
			return fmt.Sprintf("See [`%s`](#%s).", title, anchor(t.title))
		}
	}
	return ""
}

// heading is a title with its code marked.
func heading(title string) string {
	if key, owner, inner := strings.Cut(title, " of "); inner {
		return "`" + key + "` of " + heading(owner)
	}
	return "`" + title + "`"
}

// anchor is the fragment that a heading gets where Markdown is shown.
func anchor(title string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}

func kindOf(f field) string {
	switch {
	case f.secret:
		return "secret"
	case f.isName:
		return "name"
	case f.bytes:
		return "size"
	case f.isDuration():
		return "duration"
	case f.typ == reflect.TypeFor[pattern.List]():
		return "string or list of strings"
	}
	switch f.typ.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number"
	case reflect.Struct, reflect.Pointer:
		return "table"
	case reflect.Map:
		return "table of strings"
	case reflect.Slice:
		if isTable(f.typ.Elem()) {
			return "list of tables"
		}
		if f.typ.Elem().Kind() == reflect.Float64 {
			return "list of numbers"
		}
		return "list of strings"
	}
	return "whole number"
}

func presetOf(f field) string {
	switch {
	case f.required:
		return "**required**"
	case f.preset == "":
		return ""
	case f.preset32 != "":
		return "`" + f.quote(f.preset) + "`, `" + f.quote(f.preset32) + "` on 32-bit machines"
	}
	return "`" + f.quote(f.preset) + "`"
}

func values(f field) string {
	if len(f.oneof) == 0 {
		return f.limits()
	}
	quoted := make([]string, 0, len(f.oneof))
	for _, v := range f.oneof {
		quoted = append(quoted, "`"+f.quote(v)+"`")
	}
	return strings.Join(quoted, ", ")
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// comments are the doc comments of struct fields, read from the source.
type comments struct {
	docs map[string]string // by package path, type and field
	read map[string]bool   // packages
}

// of returns the comment of a field, with the keys for the names that they have
// in Go.
func (c comments) of(t *testing.T, owner reflect.Type, name string) string {
	t.Helper()
	if pkg := owner.PkgPath(); !c.read[pkg] {
		c.read[pkg] = true
		c.load(t, pkg)
	}
	text := c.docs[owner.PkgPath()+"."+owner.Name()+"."+name]
	if text == "" {
		t.Fatalf("%v.%s has no comment", owner, name)
	}
	text = meaning(name, text)
	for _, f := range fieldsOf(owner) {
		if f.owner == owner && !isTable(f.typ) {
			// Not at the beginning of a sentence, where any word is capitalised.
			text = regexp.MustCompile(`([^.] )\b`+f.name+`\b`).ReplaceAllString(text, "${1}`"+f.key+"`")
		}
	}
	return text
}

// meaning turns the doc comment of the field called name into words about its
// key: "Name is the x" and "Name holds x" lose their name, "Name of the x" keeps
// it as a word.
func meaning(name, text string) string {
	rest, named := strings.CutPrefix(text, name+" ")
	word, after, _ := strings.Cut(rest, " ")
	switch {
	case !named:
		return text
	case word == "is" || word == "are":
		return capital(after)
	case strings.HasSuffix(word, "s") && word != "settings":
		return capital(rest)
	}
	if name == strings.ToUpper(name) {
		return text
	}
	words := regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name, "$1 $2")
	return words[:1] + strings.ToLower(words[1:]) + " " + rest
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// load reads the comments of a package of this module.
func (c comments) load(t *testing.T, pkg string) {
	t.Helper()
	module := strings.TrimSuffix(reflect.TypeFor[File]().PkgPath(), "internal/config")
	files, err := filepath.Glob(filepath.Join("../..", strings.TrimPrefix(pkg, module), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(pkg, err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if fields, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range fields.Fields.List {
					for _, name := range f.Names {
						c.docs[pkg+"."+spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
					}
				}
			}
			return true
		})
	}
}
