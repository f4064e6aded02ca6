package config

import (
	"reflect"
	"strconv"
	"strings"
	"time"
)

// The fields of a Config struct say in their tags what a key may be:
//
//	toml:"-"           none: the agent sets it
//	toml:"key"         the key; a field without it, if embedded, lends its own keys to the table
//	default:"5s"       what holds when the key is not given, written as in the file
//	default32:"…"      the same on a 32-bit machine, where it differs
//	min:"1" max:"9"    the range of a number, duration or size, both ends included
//	oneof:"a,b"        the values that there are
//	unit:"bytes"       a size: "512KiB", "1GiB", or a whole number of bytes
//	required:"true"    the key must be given
//	name:"true"        a name as record.CheckName has it
//	secret:"true"      "file:/path" or "env:NAME", never the secret itself
//	example:"…"        what to write where a required key is missing, as in the file
//
// A table is a struct, or a pointer to one that is nil unless the table is given.
type field struct {
	index    []int // as reflect.Value.FieldByIndex takes it
	owner    reflect.Type
	name     string // of the struct's field
	typ      reflect.Type
	key      string
	preset   string
	preset32 string
	low      string
	high     string
	oneof    []string
	bytes    bool
	required bool
	isName   bool
	secret   bool
	example  string
}

// fieldsOf lists the keys of the table that a struct type describes.
func fieldsOf(t reflect.Type) []field {
	var list []field
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("toml")
		if key == "-" {
			continue // set by the agent, not in the file
		}
		if key == "" {
			if f.Anonymous {
				for _, inner := range fieldsOf(f.Type) {
					inner.index = append([]int{i}, inner.index...)
					list = append(list, inner)
				}
			}
			continue
		}
		list = append(list, field{
			index:    f.Index,
			owner:    t,
			name:     f.Name,
			typ:      f.Type,
			key:      key,
			preset:   f.Tag.Get("default"),
			preset32: f.Tag.Get("default32"),
			low:      f.Tag.Get("min"),
			high:     f.Tag.Get("max"),
			oneof:    strings.FieldsFunc(f.Tag.Get("oneof"), func(r rune) bool { return r == ',' }),
			bytes:    f.Tag.Get("unit") == "bytes",
			required: f.Tag.Get("required") == "true",
			isName:   f.Tag.Get("name") == "true",
			secret:   f.Tag.Get("secret") == "true",
			example:  f.Tag.Get("example"),
		})
	}
	return list
}

// optional tells a table whose being there means something.
func (f *field) optional() bool {
	return f.typ.Kind() == reflect.Pointer && isTable(f.typ.Elem())
}

// initial is the default of f on this machine.
func (f *field) initial() string {
	if f.preset32 != "" && strconv.IntSize == 32 {
		return f.preset32
	}
	return f.preset
}

// sample is a value to write for f, as in the file.
func (f *field) sample() string {
	switch {
	case f.example != "":
		return f.example
	case f.secret:
		return `"file:/path"`
	case f.preset != "":
		return f.quote(f.preset)
	case len(f.oneof) > 0:
		return f.quote(f.oneof[0])
	case f.isDuration():
		return `"5s"`
	case f.bytes:
		return `"1MiB"`
	}
	switch f.typ.Kind() {
	case reflect.Bool:
		return "true"
	case reflect.String:
		return `"…"`
	case reflect.Slice:
		if isTable(f.typ.Elem()) {
			return "[{ … }]"
		}
		if f.typ.Elem().Kind() == reflect.Float64 {
			return "[0, 100]"
		}
		return `["…"]`
	case reflect.Struct, reflect.Pointer, reflect.Map:
		return "{ … }"
	}
	if f.low != "" {
		return f.low
	}
	return "1"
}

// quote writes a value of f as it stands in the file.
func (f *field) quote(value string) string {
	if f.isDuration() || f.bytes || f.typ.Kind() == reflect.String {
		return quote(value)
	}
	return value
}

// quote writes a TOML string.
func quote(s string) string {
	q := strconv.Quote(s)
	if !strings.Contains(q, `\`) {
		return q
	}
	if !strings.ContainsAny(s, "'\n\r\t") {
		return "'" + s + "'"
	}
	return q
}

func (f *field) isDuration() bool { return f.typ == reflect.TypeFor[time.Duration]() }

func isTable(t reflect.Type) bool { return t.Kind() == reflect.Struct }
