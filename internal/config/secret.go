package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// secret is a key that refers to one.
type secret struct {
	path  string
	value *string
}

// secret takes a reference to a secret. The value is never part of a message:
// it may be the secret itself, written here by mistake.
func (d *decoder) secret(path string, raw any, target reflect.Value) {
	s, ok := raw.(string)
	name, isEnv := strings.CutPrefix(s, "env:")
	file, isFile := strings.CutPrefix(s, "file:")
	switch {
	case !ok || !isEnv && !isFile:
		d.say(path, `%s must not stand in this file; write "file:/path" or "env:NAME"`, lastKey(path))
	case isEnv && name == "":
		d.say(path, `%s names no environment variable; write "env:NAME"`, lastKey(path))
	case isFile && !filepath.IsAbs(file):
		d.say(path, `%s must name its file from the root; write "file:/path"`, lastKey(path))
	default:
		target.SetString(s)
		if p, ok := target.Addr().Interface().(*string); ok {
			d.secrets = append(d.secrets, secret{path, p})
		}
	}
}

// maxSecret bounds a secret's file, in bytes.
const maxSecret = 64 << 10

// ResolveSecrets replaces each reference to a secret by the secret: the text of
// its file without the line end, or the environment variable. It is for a
// start: Load leaves the references alone, so that a configuration can be
// checked on another machine.
func (f *File) ResolveSecrets(lookup func(name string) (string, bool)) Problems {
	r := &reporter{source: f.source, bad: make(map[string]bool)}
	for _, s := range f.secrets {
		text, err := readSecret(*s.value, lookup)
		if err != nil {
			r.say(s.path, "%s: %v", lastKey(s.path), err)
			continue
		}
		*s.value = text
	}
	f.source, f.secrets = nil, nil // of no more use, and as large as the file
	return r.problems.sorted()
}

func readSecret(reference string, lookup func(name string) (string, bool)) (string, error) {
	if name, ok := strings.CutPrefix(reference, "env:"); ok {
		text, set := lookup(name)
		if !set || text == "" {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
		return text, nil
	}
	path := strings.TrimPrefix(reference, "file:")
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > maxSecret {
		return "", fmt.Errorf("%s has %d bytes, which is no secret", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return secret, nil
}
