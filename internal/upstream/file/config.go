package file

import "path/filepath"

// Config is the file table of an [[upstream]].
type Config struct {
	// Path of the file that records are appended to, as JSON Lines. Its folder
	// must exist; the file is made with mode 0640.
	Path string `toml:"path" required:"true"`
}

// Validate reports what is wrong with c, by the key it is wrong in.
func (c *Config) Validate(report func(key, problem string)) {
	if c.Path == "" {
		return // reported as missing by whoever reads the table
	}
	if !filepath.IsAbs(c.Path) {
		report("path", "must be absolute, such as /var/lib/edge-agent/out.jsonl: a relative one would depend on where the agent was started")
	}
}
