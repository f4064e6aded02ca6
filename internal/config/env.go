package config

import "strconv"

// override is an environment variable that takes the place of a key: what a
// container sets.
type override struct {
	name       string
	table, key string
}

func overrides() []override {
	return []override{
		{"EDGE_AGENT_AGENT_ID", "agent", "id"},
		{"EDGE_AGENT_DATA_DIR", "agent", "data_dir"},
		{"EDGE_AGENT_ADMIN_LISTEN", "admin", "listen"},
		{"EDGE_AGENT_LOG_LEVEL", "log", "level"},
		{"EDGE_AGENT_LOG_FORMAT", "log", "format"},
	}
}

// applyEnvironment writes what the environment says into raw, where it is
// checked like the rest. An empty variable counts as one that is not set.
func applyEnvironment(raw map[string]any, s *source, lookup func(string) (string, bool)) {
	for _, o := range overrides() {
		value, set := lookup(o.name)
		if !set || value == "" {
			continue
		}
		if raw[o.table] == nil {
			raw[o.table] = make(map[string]any)
		}
		table, ok := raw[o.table].(map[string]any)
		if !ok {
			continue // the file is wrong there, which is reported
		}
		table[o.key] = value
		s.spans[join(o.table, o.key)] = span{env: o.name, value: strconv.Quote(value)}
	}
}
