package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Files that are no queue of this program, or were one, are moved aside in their
// directory, under names that say what they are and when:
//
//	queue.damaged-20261129T101500Z.db    what could be read was taken over
//	queue.damaged-20261129T101500Z.json  the Report of that
//	queue.foreign-20261129T101500Z.db    of another program
//	queue.format7-20261129T101500Z.db    of a newer version of this one
const (
	asidePrefix = "queue."
	asideTime   = "20060102T150405Z"

	asideDamaged = "damaged"
	asideForeign = "foreign"
)

// maxAside bounds the damaged files that are kept, in number; in bytes it is
// max_size. Beyond, the oldest ones go, and the log says so as an error: all that
// could be read of them was taken over, and their reports stay. Files of other
// programs and versions are never deleted.
const maxAside = 4

// AsideFile is a file that was moved aside.
type AsideFile struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind"` // "damaged", "foreign", "format7"
	Bytes   int64     `json:"bytes"`
	Moved   time.Time `json:"moved"`
	Report  string    `json:"report,omitempty"` // its name, of a damaged one
	ordinal int
}

// Aside lists the files that were moved aside in a queue's directory, the oldest
// first.
func Aside(dir string) ([]AsideFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	var list []AsideFile
	for _, e := range entries {
		f, ok := parseAside(e.Name())
		info, err := e.Info()
		if !ok || err != nil || !info.Mode().IsRegular() {
			continue
		}
		f.Bytes = info.Size()
		report := strings.TrimSuffix(f.Name, ".db") + ".json"
		if _, err := os.Stat(filepath.Join(dir, report)); err == nil {
			f.Report = report
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b AsideFile) int {
		return cmp.Or(a.Moved.Compare(b.Moved), cmp.Compare(a.ordinal, b.ordinal), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

func parseAside(name string) (f AsideFile, ok bool) {
	middle, ok := strings.CutPrefix(name, asidePrefix)
	if !ok {
		return f, false
	}
	if middle, ok = strings.CutSuffix(middle, ".db"); !ok {
		return f, false
	}
	kind, when, ok := strings.Cut(middle, "-")
	if !ok {
		return f, false
	}
	when, ordinal, numbered := strings.Cut(when, "-")
	f = AsideFile{Name: name, Kind: kind}
	if numbered {
		if _, err := fmt.Sscanf(ordinal, "%d", &f.ordinal); err != nil {
			return f, false
		}
	}
	var err error
	f.Moved, err = time.Parse(asideTime, when)
	return f, err == nil
}

// asideName finds a name that is free.
func asideName(dir, kind string, now time.Time) (string, error) {
	stem := filepath.Join(dir, asidePrefix+kind+"-"+now.UTC().Format(asideTime))
	for i := 0; ; i++ {
		path := stem + ".db"
		if i > 0 {
			path = fmt.Sprintf("%s-%d.db", stem, i)
		}
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return path, nil
		} else if err != nil {
			return "", err
		}
	}
}

// moveAside gives the queue's file another name, durably.
func (s *Store) moveAside(kind string) (path string, err error) {
	dir := filepath.Dir(s.path)
	if path, err = asideName(dir, kind, time.Now()); err != nil {
		return "", err
	}
	if err := os.Rename(s.path, path); err != nil {
		return "", err
	}
	return path, s.disk.sync(dir)
}

// setAside makes room for a new queue where a file stands that is none of ours.
func (s *Store) setAside(kind string, cause error) error {
	path, err := s.moveAside(kind)
	if err != nil {
		return err
	}
	s.log.Error("the file in the queue's place is moved aside untouched, and a new queue begins", "file", s.path, "moved_to", path, "why", cause)
	return nil
}

// writeReport puts a report beside the file that it is about, durably but for its
// directory entry.
func writeReport(path string, r *Report) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

// trimAside deletes the oldest damaged files beyond what is kept, and notes those
// that are there.
func (s *Store) trimAside() error {
	dir := filepath.Dir(s.path)
	list, err := Aside(dir)
	if err != nil {
		return err
	}
	kept, bytes := 0, int64(0)
	for _, f := range slices.Backward(list) {
		if f.Kind == asideDamaged && f.Report != "" {
			kept++
			bytes += f.Bytes
			if kept > 1 && (kept > maxAside || bytes > s.cfg.MaxSize) {
				s.log.Error("an old damaged queue file is deleted to keep the disk from filling up: what could be read was taken over, and its report stays",
					"file", filepath.Join(dir, f.Name), "bytes", f.Bytes, "report", f.Report)
				if err := os.Remove(filepath.Join(dir, f.Name)); err != nil {
					return err
				}
				continue
			}
		}
		s.aside = append(s.aside, f)
	}
	slices.Reverse(s.aside)
	if n := len(s.aside); n > 0 {
		s.notice(fmt.Sprintf("files that stood in the queue's place and could not be used are kept in %s (%d): look what you need of them, and delete them", dir, n))
	}
	return nil
}
