package pipeline

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// Quarantine is the file of records that could not be delivered and never will
// be as they are: a destination refused them for good, or they can't be read.
// They are kept, one JSON object a line with the reason, and counted. Several
// pumps may add to it at a time.
type Quarantine struct {
	path string
	mu   sync.Mutex
}

// maxQuarantine bounds the file, in bytes. At the bound a refused record holds up
// its route, which status tells, until somebody has looked at the file and moved
// it away.
const maxQuarantine = 64 << 20

// NewQuarantine names the file; it is made with the first record.
func NewQuarantine(path string) *Quarantine { return &Quarantine{path: path} }

// Path of the file.
func (q *Quarantine) Path() string { return q.path }

type quarantined struct {
	At     time.Time       `json:"at"`
	Route  string          `json:"route"`
	Reason string          `json:"reason"`
	Record json.RawMessage `json:"record"`
}

// Add returns when the record is on disk: only then may its cursor move on.
func (q *Quarantine) Add(route string, r *record.Record, cause error) error {
	line, err := json.Marshal(quarantined{At: time.Now().UTC(), Route: route, Reason: cause.Error(), Record: r.AppendJSON(nil)})
	if err != nil {
		return fmt.Errorf("quarantine %s: %w", q.path, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	f, err := os.OpenFile(q.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size()+int64(len(line)) > maxQuarantine {
		err = fmt.Errorf("%s has reached %d MiB; see why records are refused, then move it away", q.path, maxQuarantine>>20)
	}
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	return nil
}
