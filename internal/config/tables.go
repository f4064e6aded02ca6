package config

import (
	"reflect"
	"strings"
)

// table is one table of the file.
type table struct {
	title string // as the documentation names it: [agent], [[link]], serial of [[link]]
	key   string
	typ   reflect.Type
	note  field // the key that holds it
}

// tables lists the tables of the file in their order.
func tables() []table { return tablesOf(reflect.TypeFor[File](), "", "") }

func tablesOf(t reflect.Type, path, owner string) []table {
	var list []table
	for _, f := range fieldsOf(t) {
		inner := f.typ
		if inner.Kind() == reflect.Slice || f.optional() {
			inner = inner.Elem()
		}
		if !isTable(inner) {
			continue
		}
		at := join(path, f.key)
		title := f.key + " of " + owner
		switch {
		case f.typ.Kind() == reflect.Slice && !strings.HasSuffix(f.key, "s"):
			title = "[[" + at + "]]" // singular: each has a header of its own
		case path == "":
			title = "[" + at + "]"
		}
		list = append(list, table{title: title, key: at, typ: inner, note: f})
		list = append(list, tablesOf(inner, at, title)...)
	}
	return list
}
