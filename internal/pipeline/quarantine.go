package pipeline

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// QuarantineName is the file in the data directory.
const QuarantineName = "quarantine.jsonl"

// MaxQuarantine bounds the file, in bytes. At the bound a refused record holds up
// its route, which status tells, until entries are delivered or deleted.
const MaxQuarantine = 64 << 20

// maxQuarantined bounds one line of the file, in bytes: a record of 16 MiB, the most
// that a frame can bring, in base64, and what else there is of it.
const maxQuarantined = 32 << 20

// ErrUnreadable marks the cause of an entry whose record can't be decoded: its
// payload is the record as it stood in the queue.
var ErrUnreadable = errors.New("the record can't be read")

// Quarantine is the file of records that could not be delivered and never will
// be as they are: a destination refused them for good, or they can't be read.
// They are kept, one JSON object a line with the reason, and counted. Its methods may
// be called concurrently, in one process at a time.
type Quarantine struct {
	path string

	mu      sync.Mutex // held by whoever changes the file
	stats   QuarantineStats
	counted bool // stats are those of the file
}

// QuarantineStats is how much is in quarantine.
type QuarantineStats struct {
	Entries  int   `json:"entries"`
	Bytes    int64 `json:"bytes"`
	MaxBytes int64 `json:"max_bytes"`
}

// Quarantined is an entry: a record that was set aside.
type Quarantined struct {
	ID     string    `json:"id"`
	At     time.Time `json:"at"`              // when it was set aside last
	Route  string    `json:"route"`           // and upstream, on whose way it was
	Reason string    `json:"reason"`          // why it was set aside last
	Tries  int       `json:"tries,omitempty"` // how often it was sent again, and refused again
	// Unreadable says that the record can't be decoded; its payload is what stood in
	// the queue.
	Unreadable bool            `json:"unreadable,omitempty"`
	Record     json.RawMessage `json:"record,omitempty"` // as record.AppendExact writes it
	// Damaged says that the line itself is no entry: it can be deleted only.
	Damaged bool `json:"damaged,omitempty"`
}

// NewQuarantine names the file; it is made with the first record.
func NewQuarantine(path string) *Quarantine { return &Quarantine{path: path} }

// Path of the file.
func (q *Quarantine) Path() string { return q.path }

// Stats may be called at any time. The first call reads the file; what can't be read
// counts as nothing.
func (q *Quarantine) Stats() QuarantineStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.count(); err != nil {
		return QuarantineStats{MaxBytes: MaxQuarantine}
	}
	return q.stats
}

func (q *Quarantine) count() error {
	if q.counted {
		return nil
	}
	q.stats = QuarantineStats{MaxBytes: MaxQuarantine}
	_, err := q.lines(0, func(line []byte) bool {
		q.stats.Entries++
		q.stats.Bytes += int64(len(line))
		return true
	})
	q.counted = err == nil
	return err
}

// Add returns when the record is on disk: only then may its cursor move on. A cause
// that is ErrUnreadable says that the record's payload is what can't be decoded.
func (q *Quarantine) Add(route string, r *record.Record, cause error) error {
	entry := Quarantined{
		At: time.Now().UTC(), Route: route, Reason: cause.Error(),
		Unreadable: errors.Is(cause, ErrUnreadable), Record: r.AppendExact(nil),
	}
	line, err := entry.line()
	if err == nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		err = q.add(line)
	}
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	return nil
}

// line is the entry as it stands in the file. One without an ID gets one.
func (e *Quarantined) line() ([]byte, error) {
	line, err := json.Marshal(e)
	if err == nil && e.ID == "" {
		e.ID = nameOf(line)
		line, err = json.Marshal(e)
	}
	return append(line, '\n'), err
}

// nameOf makes an ID of what an entry says.
func nameOf(line []byte) string {
	sum := sha256.Sum256(bytes.TrimSpace(line))
	return hex.EncodeToString(sum[:6])
}

func (q *Quarantine) add(line []byte) error {
	if err := q.count(); err != nil {
		return err
	}
	if q.stats.Bytes+int64(len(line)) > MaxQuarantine {
		return fmt.Errorf("%s has reached %d MiB; see why records are refused (edge-agent queue quarantine list), then retry, or export and delete them", q.path, MaxQuarantine>>20)
	}
	f, err := os.OpenFile(q.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	whole := line
	torn, err := endsTorn(f)
	if torn {
		whole = append([]byte{'\n'}, line...) // a power cut has left half a line
	}
	if err == nil {
		_, err = f.Write(whole)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		q.counted = false // some of it may be there
		return err
	}
	if q.stats.Entries == 0 {
		if err := syncDir(filepath.Dir(q.path)); err != nil {
			return err
		}
	}
	q.stats.Entries++
	q.stats.Bytes += int64(len(whole))
	return nil
}

func endsTorn(f *os.File) (bool, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return false, err
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], size-1)
	return last[0] != '\n', err
}

// lines calls each for the lines of the file from an offset on, with their newline,
// until it returns false, and returns where it has stopped. A file that is not there
// has none.
func (q *Quarantine) lines(from int64, each func(line []byte) bool) (next int64, err error) {
	f, err := os.Open(q.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return from, err
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return from, err
	}
	r := bufio.NewReaderSize(io.LimitReader(f, MaxQuarantine+maxQuarantined), 64<<10)
	for next = from; ; {
		line, err := r.ReadBytes('\n')
		next += int64(len(line))
		if len(bytes.TrimSpace(line)) > 0 && !each(line) {
			return next, nil
		}
		if errors.Is(err, io.EOF) {
			return next, nil
		}
		if err != nil {
			return next, err
		}
	}
}

// parseQuarantined reads a line of the file. Older ones have no ID.
func parseQuarantined(line []byte) Quarantined {
	var e Quarantined
	if err := json.Unmarshal(line, &e); err != nil || e.Route == "" || len(e.Record) == 0 {
		return Quarantined{ID: nameOf(line), Reason: "this line of the file can't be read", Damaged: true}
	}
	if e.ID == "" {
		e.ID = nameOf(line)
	}
	return e
}

// QuarantinePage is a part of what is in quarantine.
type QuarantinePage struct {
	Entries []Quarantined   `json:"entries"`
	Next    int64           `json:"next"` // to go on from; 0: there is no more
	Stats   QuarantineStats `json:"stats"`
}

// maxQuarantinePage bounds a page, in bytes of the file.
const maxQuarantinePage = 4 << 20

// Page reads entries from a place that the page before has named; 0 is the oldest. It
// has at most limit entries, and about 4 MiB.
func (q *Quarantine) Page(from int64, limit int) (QuarantinePage, error) {
	p := QuarantinePage{Entries: []Quarantined{}, Stats: q.Stats()}
	more, size := false, 0
	next, err := q.lines(from, func(line []byte) bool {
		p.Entries = append(p.Entries, parseQuarantined(line))
		size += len(line)
		more = len(p.Entries) >= max(limit, 1) || size > maxQuarantinePage
		return !more
	})
	if err != nil {
		return p, fmt.Errorf("quarantine: %w", err)
	}
	if more {
		p.Next = next
	}
	return p, nil
}

// Delete takes entries out of the file; nil means all. It returns how many they were,
// when that is on disk.
func (q *Quarantine) Delete(ids []string) (int, error) {
	gone := make(map[string]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	return q.rewrite(func(e *Quarantined) *Quarantined {
		if ids == nil || gone[e.ID] {
			return nil
		}
		return e
	})
}

// rewrite puts a new file in the place of the old one, with what keep makes of each
// entry; nil takes it out. After a crash it is the one or the other.
func (q *Quarantine) rewrite(keep func(*Quarantined) *Quarantined) (gone int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fresh := q.path + ".new"
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return 0, fmt.Errorf("quarantine: %w", err)
	}
	stats := QuarantineStats{MaxBytes: MaxQuarantine}
	changed := false
	w := bufio.NewWriterSize(f, 64<<10)
	_, err = q.lines(0, func(line []byte) bool {
		e := parseQuarantined(line)
		before := e
		kept := keep(&e)
		if kept == nil {
			gone++
			return true
		}
		var failed error
		if kept.At != before.At || kept.Reason != before.Reason {
			changed = true
			line, failed = kept.line()
		}
		if line[len(line)-1] != '\n' {
			line = append(line, '\n')
		}
		if failed == nil {
			_, failed = w.Write(line)
		}
		err = errors.Join(err, failed)
		stats.Entries++
		stats.Bytes += int64(len(line))
		return failed == nil
	})
	err = errors.Join(err, w.Flush(), f.Sync(), f.Close())
	if err != nil || gone == 0 && !changed {
		err = errors.Join(err, os.Remove(fresh))
		if err != nil {
			return 0, fmt.Errorf("quarantine: %w", err)
		}
		return 0, nil
	}
	if err := errors.Join(os.Rename(fresh, q.path), syncDir(filepath.Dir(q.path))); err != nil {
		q.counted = false
		return 0, fmt.Errorf("quarantine: %w", err)
	}
	q.stats, q.counted = stats, true
	return gone, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
