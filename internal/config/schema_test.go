package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// eachField calls do for every key of every table.
func eachField(do func(where string, f *field)) {
	all := append([]table{{title: "the file", typ: reflect.TypeFor[File]()}}, tables()...)
	for _, t := range all {
		for _, f := range fieldsOf(t.typ) {
			do(f.key+" of "+t.title, &f)
		}
	}
}

func TestTheTagsOfEveryConfigStructCanBeRead(t *testing.T) {
	eachField(func(where string, f *field) {
		if f.preset != "" {
			if _, problem := f.parse(presetValue(f)); problem != "" {
				t.Errorf("%s: the default %q %s", where, f.preset, problem)
			}
		}
		for _, end := range []string{f.low, f.high} {
			if end == "" {
				continue
			}
			// Two fallbacks that differ: what comes back twice has been read.
			if f.bound(end, -1) != f.bound(end, -2) {
				t.Errorf("%s: %q is no end of a range", where, end)
			}
		}
		if f.preset32 != "" {
			f.preset = f.preset32
			if _, problem := f.parse(presetValue(f)); problem != "" {
				t.Errorf("%s: the default %q on 32 bits %s", where, f.preset32, problem)
			}
		}
		if f.secret && f.typ.Kind() != reflect.String {
			t.Errorf("%s is a secret, and no string", where)
		}
		if raw := f.sample(); !strings.Contains(raw, "…") {
			var document map[string]any
			if _, err := toml.Decode("x = "+raw, &document); err != nil {
				t.Errorf("%s: the example %s is no TOML: %v", where, raw, err)
			}
		}
	})
}

func TestEveryFieldOfAConfigStructHasAKey(t *testing.T) {
	// What the file derives or keeps for itself.
	derived := []string{"File.source", "File.secrets", "Link.Driver", "Config.TLS", "Config.Gate"}
	all := append([]table{{typ: reflect.TypeFor[File]()}}, tables()...)
	for _, table := range all {
		for i := range table.typ.NumField() {
			f := table.typ.Field(i)
			name := table.typ.Name() + "." + f.Name
			if f.Tag.Get("toml") == "" && !f.Anonymous && !slices.Contains(derived, name) {
				t.Errorf("%s has no toml tag", name)
			}
		}
	}
}

func TestAKeyOfALaterVersionIsNotThereYet(t *testing.T) {
	keys := make(map[string]*field)
	for _, table := range tables() {
		for _, f := range fieldsOf(table.typ) {
			keys[join(table.key, f.key)] = &f
		}
	}
	for later := range notYet() {
		path, value, isValue := strings.Cut(later, "=")
		f, taken := keys[path]
		switch {
		case !isValue && taken:
			t.Errorf("%s is there", later)
		case isValue && !taken:
			t.Errorf("%s is a value of no key", later)
		case isValue && slices.Contains(f.oneof, value):
			t.Errorf("%s is there", later)
		}
	}
}
