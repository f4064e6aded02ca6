package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/term"
)

// errEnough ends a walk through the queue.
var errEnough = errors.New("enough")

// meter shows on a terminal how far long work is: one line, repainted four times a
// second at most. Elsewhere it says nothing.
type meter struct {
	out     io.Writer // nil: no terminal
	what    string
	painted bool
	last    time.Time
	began   time.Time
	trouble string
}

// meterWidth is the longest line, in characters: a longer one would wrap, and not be
// painted over.
const meterWidth = 78

func newMeter(errs errorWriter, what string) *meter {
	m := &meter{what: what, began: time.Now()}
	if file, ok := errs.Writer.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		m.out = file
	}
	return m
}

// note adds why it does not go on.
func (m *meter) note(trouble string) { m.trouble = trouble }

// show paints once work has gone on for a moment.
func (m *meter) show(done, total uint64) {
	now := time.Now()
	if m.out == nil || now.Sub(m.began) < 500*time.Millisecond || now.Sub(m.last) < 250*time.Millisecond {
		return
	}
	m.last, m.painted = now, true
	left := ""
	if spent := now.Sub(m.began); done > 0 && done < total && spent > 2*time.Second {
		left = fmt.Sprintf(", %v left", time.Duration(float64(spent)*float64(total-done)/float64(done)).Round(time.Second))
	}
	line := fmt.Sprintf("%s: %d %%%s", m.what, 100*min(done, total)/max(total, 1), left)
	if m.trouble != "" {
		line += " (" + m.trouble + ")"
		m.trouble = ""
	}
	if runes := []rune(line); len(runes) > meterWidth {
		line = string(runes[:meterWidth-1]) + "…"
	}
	fmt.Fprintf(m.out, "\r\x1b[2K%s", line)
}

// end takes the line from the terminal.
func (m *meter) end() {
	if m.painted {
		fmt.Fprint(m.out, "\r\x1b[2K")
		m.painted = false
	}
}

// grouped writes a number for people: 1,204,331.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// counted is "1 record", "1,204 records".
func counted(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return grouped(n) + " " + what + "s"
}

// sized writes a number of bytes for people.
func sized(n int64) string {
	const unit = 1 << 10
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, names := float64(n)/unit, []string{"KiB", "MiB", "GiB", "TiB"}
	i := 0
	for value >= 999.5 && i < len(names)-1 {
		value /= unit
		i++
	}
	if value < 99.95 {
		return fmt.Sprintf("%.1f %s", value, names[i])
	}
	return fmt.Sprintf("%.0f %s", value, names[i])
}

// shortTime is to the second, in this machine's time zone.
func shortTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// toMinute is shorter still, for tables.
func toMinute(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

// spell is a length of time for people: 41 d 3 h, 2 h 5 min, 12 s.
func spell(d time.Duration) string {
	d = d.Round(time.Second)
	day := 24 * time.Hour
	switch {
	case d < 0:
		return "in the future"
	case d >= day:
		return fmt.Sprintf("%d d %d h", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

// newFile is a file that is being written; it bears its name only once it is whole
// and on disk.
type newFile struct {
	*os.File
	path string
}

// createFile begins a file that must not be there yet.
func createFile(path string) (*newFile, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, inputError{fmt.Errorf("%s is there already; give another name, or delete it first", path)}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, inputError{err}
	}
	f, err := os.OpenFile(path+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, inputError{err}
	}
	return &newFile{f, path}, nil
}

// finish puts the file in its place if all went well, and removes it otherwise.
func (f *newFile) finish(err error) error {
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
