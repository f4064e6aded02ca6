package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Source is the file, or the environment variable, that it stands in.
	Source string
	// Line and Column count from 1, the column in characters; both are 0 for an
	// environment variable.
	Line, Column int
	// Key is the path of the key, such as device[1].poll[0].every.
	Key string
	// Message says what is wrong and what to write instead.
	Message string
	// Warning: the agent runs all the same.
	Warning bool
}

// String is the problem as file:line:column: message.
func (p Problem) String() string {
	kind := ""
	if p.Warning {
		kind = "warning: "
	}
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s%s", p.Source, kind, p.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s%s", p.Source, p.Line, p.Column, kind, p.Message)
}

// Problems are sorted by their place, what the environment says first. There
// are warnings or errors, not both: warnings about half a configuration would
// mislead.
type Problems []Problem

// Fatal tells whether there is more than warnings.
func (list Problems) Fatal() bool {
	return slices.ContainsFunc(list, func(p Problem) bool { return !p.Warning })
}

// String is one problem a line.
func (list Problems) String() string {
	var b strings.Builder
	for _, p := range list {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}

func (list Problems) sorted() Problems {
	if list.Fatal() {
		list = slices.DeleteFunc(list, func(p Problem) bool { return p.Warning })
	}
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return list
}

// reporter collects problems by the path of their key.
type reporter struct {
	*source
	problems Problems
	bad      map[string]bool // paths whose value is no good
}

// report notes that the value of path is wrong. problem goes on from the key
// and its value: `is out of range; write 1 to 247`.
func (r *reporter) report(path, problem string) {
	if r.bad[path] {
		return // one problem a value: the first explains it
	}
	r.bad[path] = true
	r.add(path, r.label(path)+" "+problem, false)
}

// reportf is report with a format.
func (r *reporter) reportf(path, format string, args ...any) {
	r.report(path, fmt.Sprintf(format, args...))
}

// warnf notes what the agent runs with all the same.
func (r *reporter) warnf(path, format string, args ...any) {
	r.add(path, r.label(path)+" "+fmt.Sprintf(format, args...), true)
}

// say is report with the whole message.
func (r *reporter) say(path, format string, args ...any) {
	if r.bad[path] {
		return
	}
	r.bad[path] = true
	r.add(path, fmt.Sprintf(format, args...), false)
}

func (r *reporter) add(path, message string, warning bool) {
	p := Problem{Source: r.name, Key: path, Message: message, Warning: warning}
	if at := r.find(path); at.env != "" {
		p.Source = at.env
	} else {
		p.Line, p.Column = r.place(at.key)
	}
	r.problems = append(r.problems, p)
}

// clean tells whether nothing was said against path and what stands below it.
func (r *reporter) clean(path string) bool {
	for bad := range r.bad {
		if rest, below := strings.CutPrefix(bad, path); below && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return false
		}
	}
	return true
}

// ok tells whether nothing was said against any of the paths.
func (r *reporter) ok(paths ...string) bool {
	return !slices.ContainsFunc(paths, func(path string) bool { return r.bad[path] })
}
