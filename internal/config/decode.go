package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/mcp-edge/edge-agent/internal/pattern"
)

// decoder fills structs from what the TOML library has read, and reports
// whatever does not fit.
type decoder struct {
	*reporter
	secrets []secret
	known   map[reflect.Type][]field // fieldsOf, once for each type
	store   *compact
}

func newDecoder(r *reporter) *decoder {
	return &decoder{reporter: r, known: make(map[reflect.Type][]field), store: newCompact()}
}

func (d *decoder) fields(t reflect.Type) []field {
	list, ok := d.known[t]
	if !ok {
		list = fieldsOf(t)
		d.known[t] = list
	}
	return list
}

// validator is what a Config struct may add to its tags: Validate reports by
// keys such as points[2].address, relative to the struct's table.
type validator interface {
	Validate(report func(key, problem string))
}

// table fills the struct into from raw, the table at path.
func (d *decoder) table(path string, raw map[string]any, into reflect.Value) {
	fields := d.fields(into.Type())
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.key == key }) {
			if meant := d.unknown(path, key, raw[key], fields); meant != "" && raw[meant] == nil {
				d.bad[join(path, meant)] = true // not missing as well
			}
		}
	}
	for i := range fields {
		f := &fields[i]
		at, target := join(path, f.key), into.FieldByIndex(f.index)
		d.preset(target, f)
		if value, given := raw[f.key]; given {
			d.value(at, value, target, f)
		} else if f.required {
			d.missing(path, f)
		}
	}
	if v, ok := into.Addr().Interface().(validator); ok {
		v.Validate(func(key, problem string) {
			d.say(path+"."+key, "%s: %s", lastKey(key), problem)
		})
	}
}

// preset gives target the default of f, and its keys theirs where it is a table.
// An optional table is nil until it is given.
func (d *decoder) preset(target reflect.Value, f *field) {
	if f.optional() {
		return
	}
	if isTable(f.typ) {
		for _, inner := range d.fields(f.typ) {
			d.preset(target.FieldByIndex(inner.index), &inner)
		}
		return
	}
	if f.initial() == "" {
		return
	}
	// A default is written as in the file, so it is read as from there; that
	// each is good is held by a test.
	if value, problem := f.parse(presetValue(f)); problem == "" {
		target.Set(reflect.ValueOf(value).Convert(f.typ))
	}
}

// missing reports that the table at path lacks f.
func (d *decoder) missing(path string, f *field) {
	at := join(path, f.key)
	if isTable(f.typ) {
		write := ""
		for _, inner := range d.fields(f.typ) {
			if inner.required {
				write += fmt.Sprintf(" with %s = %s", inner.key, inner.sample())
			}
		}
		d.say(at, "there is no [%s]; write [%s]%s", f.key, f.key, write)
		return
	}
	d.say(at, "%s has no %s; write %s = %s", d.nameOf(path), f.key, f.key, f.sample())
}

// value fills target from raw, which stands at path.
func (d *decoder) value(path string, raw any, target reflect.Value, f *field) {
	switch kind := f.typ.Kind(); {
	case f.optional():
		target.Set(reflect.New(f.typ.Elem()))
		d.oneTable(path, raw, target.Elem(), f)
	case kind == reflect.Struct:
		d.oneTable(path, raw, target, f)
	case kind == reflect.Slice && isTable(f.typ.Elem()):
		d.tables(path, raw, target, f)
	case kind == reflect.Slice && f.typ.Elem().Kind() == reflect.Float64:
		d.numbers(path, raw, target, f)
	case kind == reflect.Slice:
		d.strings(path, raw, target, f)
	case kind == reflect.Map:
		d.words(path, raw, target, f)
	default:
		d.scalar(path, raw, target, f)
	}
}

func (d *decoder) scalar(path string, raw any, target reflect.Value, f *field) {
	if f.secret {
		d.secret(path, raw, target)
		return
	}
	value, problem := f.parse(raw)
	if problem != "" {
		if later, ok := notYet()[plain(path)+"="+fmt.Sprint(raw)]; ok {
			problem = "is not there yet" + later
		}
		d.report(path, problem)
	}
	if word, ok := value.(string); ok {
		value = d.store.text(word)
	}
	if value != nil {
		target.Set(reflect.ValueOf(value).Convert(f.typ))
	}
}

func (d *decoder) oneTable(path string, raw any, target reflect.Value, f *field) {
	switch raw := raw.(type) {
	case map[string]any:
		d.table(path, raw, target)
	case []map[string]any:
		d.say(path, "there is only one %s; write [%s]", f.key, plain(path))
	default:
		d.reportf(path, "is %s; write %s = { … }", describe(raw), f.key)
	}
}

func (d *decoder) tables(path string, raw any, target reflect.Value, f *field) {
	var list []any
	switch raw := raw.(type) {
	case []any:
		list = raw
	case []map[string]any:
		for _, entry := range raw {
			list = append(list, entry)
		}
	case map[string]any:
		// One table where a list is wanted: its keys are looked at all the same.
		if d.spans[path].header {
			d.say(path, "[%s] may be there several times; write [[%s]]", plain(path), plain(path))
		} else {
			d.say(path, "%s is a list; write %s = [{ … }]", f.key, f.key)
		}
		target.Set(reflect.MakeSlice(f.typ, 1, 1))
		d.alias(path, element(path, 0))
		d.table(element(path, 0), raw, target.Index(0))
		return
	default:
		d.reportf(path, "is %s; write %s = [{ … }]", describe(raw), f.key)
		return
	}
	// Made at once, so that the entries never move: secrets point into them.
	made, secrets := d.store.list(f.typ, len(list)), len(d.secrets)
	for i, entry := range list {
		if table, ok := entry.(map[string]any); ok {
			d.table(element(path, i), table, made.Index(i))
			continue
		}
		d.reportf(element(path, i), "is %s; write { … }", describe(entry))
	}
	if len(d.secrets) == secrets {
		made = d.store.again(made)
	}
	target.Set(made)
}

// numbers fills a list of numbers.
func (d *decoder) numbers(path string, raw any, target reflect.Value, f *field) {
	list, ok := raw.([]any)
	if !ok {
		d.reportf(path, "is %s; write %s = %s", describe(raw), f.key, f.sample())
		return
	}
	numbers := make([]float64, len(list))
	for i, entry := range list {
		switch n := entry.(type) {
		case float64:
			numbers[i] = n
		case int64:
			numbers[i] = float64(n)
		default:
			d.reportf(element(path, i), "is %s; write a number", describe(entry))
		}
	}
	target.Set(reflect.ValueOf(numbers))
}

// strings fills a list of strings; a pattern.List may also be one string alone.
func (d *decoder) strings(path string, raw any, target reflect.Value, f *field) {
	if word, ok := raw.(string); ok {
		if f.typ == reflect.TypeFor[pattern.List]() {
			target.Set(reflect.ValueOf(pattern.List{word}))
			return
		}
		d.reportf(path, "is a string; write %s = [%s]", f.key, quote(word))
		d.alias(path, element(path, 0))
		target.Set(reflect.ValueOf([]string{word}).Convert(f.typ))
		return
	}
	list, ok := raw.([]any)
	if !ok {
		d.reportf(path, "is %s; write %s = [\"…\"]", describe(raw), f.key)
		return
	}
	words := reflect.MakeSlice(f.typ, len(list), len(list))
	for i, entry := range list {
		word, ok := entry.(string)
		if !ok {
			d.reportf(element(path, i), "is %s; write a string in quotes", describe(entry))
			continue
		}
		words.Index(i).SetString(d.store.text(word))
	}
	target.Set(words)
}

// words fills a table of strings whose keys are the user's own.
func (d *decoder) words(path string, raw any, target reflect.Value, f *field) {
	table, ok := raw.(map[string]any)
	if !ok {
		d.reportf(path, "is %s; write %s = { name = \"…\" }", describe(raw), f.key)
		return
	}
	words := make(map[string]string, len(table))
	for _, key := range slices.Sorted(maps.Keys(table)) {
		word, ok := table[key].(string)
		if !ok {
			d.reportf(join(path, key), "is %s; write a string in quotes", describe(table[key]))
		}
		words[key] = word
	}
	target.Set(reflect.ValueOf(words))
}

// unknown reports a key that no field has, and returns the one that was
// probably meant, if any.
func (d *decoder) unknown(path, key string, value any, fields []field) (meant string) {
	at := join(path, key)
	written := fmt.Sprintf("unknown key %q", key)
	switch value.(type) {
	case map[string]any:
		if d.spans[at].header {
			written = fmt.Sprintf("unknown table [%s]", plain(at))
		}
	case []map[string]any:
		written = fmt.Sprintf("unknown table [[%s]]", plain(at))
	}
	if later, ok := notYet()[plain(at)]; ok {
		d.say(at, "%s is not there yet%s", key, later)
		return ""
	}
	known := make([]string, 0, len(fields))
	for _, f := range fields {
		known = append(known, f.key)
	}
	if near := nearest(key, known); near != "" {
		d.say(at, "%s; did you mean %q?", written, near)
		return near
	}
	if homes := homesOf(key); len(homes) > 0 {
		d.say(at, "%s; it belongs in %s", written, list(homes, "or"))
		return ""
	}
	d.say(at, "%s; %s takes %s", written, d.nameOf(path), list(known, "and"))
	return ""
}

// maxHomes is how many tables may have a key for their names to help: a word as
// common as name belongs everywhere.
const maxHomes = 3

// homesOf lists the tables that have key, for whoever wrote it in another.
func homesOf(key string) []string {
	var homes []string
	for _, t := range tables() {
		if slices.ContainsFunc(fieldsOf(t.typ), func(f field) bool { return f.key == key }) {
			homes = append(homes, t.title)
		}
	}
	if len(homes) > maxHomes {
		return nil
	}
	return homes
}

// describe says what a value is, in TOML's words.
func describe(raw any) string {
	switch raw.(type) {
	case string:
		return "a string"
	case int64:
		return "a whole number"
	case float64:
		return "a number"
	case bool:
		return "a boolean"
	case []any, []map[string]any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}
