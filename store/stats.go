package store

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// State of the store as a whole.
type State string

// States.
const (
	StateOK      State = "ok"
	StateFull    State = "full"    // at max_size, or the disk is: Append waits
	StateFailing State = "failing" // the disk refuses to write; it is tried again
)

// Stats is what an operator sees of the store. Counters start at 0 with Open.
type Stats struct {
	State  State     `json:"state"`
	Reason string    `json:"reason,omitempty"` // why not ok
	Since  time.Time `json:"since,omitzero"`   // since when not ok

	Bytes     int64  `json:"bytes"`      // of records on disk, with their envelopes
	MaxBytes  int64  `json:"max_bytes"`  // the limit of Bytes
	FileBytes int64  `json:"file_bytes"` // of disk that the file takes
	Records   uint64 `json:"records"`    // in the file
	Kept      uint64 `json:"kept"`       // of them, delivered to everybody: they give way to others
	KeptBytes int64  `json:"kept_bytes"` // of Bytes, theirs

	MaxRecords int64 `json:"max_records,omitempty"` // the limit of Records; 0: none

	Appended uint64 `json:"appended"` // records committed
	Repeats  uint64 `json:"repeats"`  // entries that a channel already had
	Unwanted uint64 `json:"unwanted"` // records that no cursor took
	Damaged  uint64 `json:"damaged"`  // records that a cursor could not read

	Commits    uint64        `json:"commits"`
	Failures   uint64        `json:"failures"`    // commits that had to be tried again
	Rescues    uint64        `json:"rescues"`     // times the file was written anew after a failed sync
	CommitTime time.Duration `json:"commit_time"` // of all commits together
	LastCommit time.Duration `json:"last_commit"` // how long the last one took
	Written    uint64        `json:"written"`     // bytes, by bbolt's count of pages

	// WrittenPerDay is what would be written in a day at the rate of the last three
	// hours, or since Open: the wear of the flash, without what the file system adds.
	// 0 in the first minute.
	WrittenPerDay uint64 `json:"written_per_day"`

	Epoch EpochStats `json:"epoch"`
	// Notices are what Open found that somebody should look after.
	Notices    []string        `json:"notices,omitempty"`
	Compaction CompactionStats `json:"compaction"`

	// Aside are the files that stood in the queue's place and could not be used.
	Aside    []AsideFile `json:"aside,omitempty"`
	DiskFree int64       `json:"disk_free"`          // bytes of the queue's disk
	MinFree  int64       `json:"min_free,omitempty"` // below this the file does not grow
	DiskLow  bool        `json:"disk_low"`           // it does not now

	Cursors []CursorStats `json:"cursors"` // by name
}

// EpochStats tells since when the numbers of this agent's devices count, and why.
type EpochStats struct {
	Epoch    string    `json:"epoch"`
	Since    time.Time `json:"since,omitzero"`
	Reason   string    `json:"reason,omitempty"` // why it began; empty for that of a new queue
	Previous string    `json:"previous,omitempty"`
}

func (a *about) stats() EpochStats {
	st := EpochStats{Epoch: a.epoch.String(), Since: a.since, Reason: a.reason}
	if a.previous != 0 {
		st.Previous = a.previous.String()
	}
	return st
}

// CursorStats is what an operator sees of a cursor.
type CursorStats struct {
	Name     string        `json:"name"`
	Held     bool          `json:"held,omitempty"` // in the file, but not opened: holds its records until Forget
	WhenFull string        `json:"when_full"`
	Acked    uint64        `json:"acked"`             // position
	Lag      uint64        `json:"lag"`               // records to deliver; of a held cursor, all behind Acked
	LagBytes uint64        `json:"lag_bytes"`         // of them, with envelopes
	Oldest   time.Time     `json:"oldest,omitzero"`   // time of the oldest record to deliver, or of one shortly before
	Dropped  []DroppedFrom `json:"dropped,omitempty"` // by device
}

// DroppedFrom counts the records of a device that were dropped for one reason.
type DroppedFrom struct {
	Agent   string    `json:"agent,omitempty"`
	Device  string    `json:"device"`
	Reason  string    `json:"reason"` // record.GapDropOldest or GapAge
	Records uint64    `json:"records"`
	First   time.Time `json:"first,omitzero"` // the oldest time of them
	Last    time.Time `json:"last,omitzero"`  // the newest
}

type droppedKey struct {
	device uint32
	reason string
}

// droppedCount has the span of their times; noTime: none had one.
type droppedCount struct {
	records     uint64
	first, last int64
}

func compareDropped(a, b droppedKey) int {
	return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.reason, b.reason))
}

func (n droppedCount) from(key SourceKey, reason string) DroppedFrom {
	return DroppedFrom{
		Agent: key.Agent, Device: key.Device, Reason: reason, Records: n.records, First: fromNanos(n.first), Last: fromNanos(n.last),
	}
}

func (n *droppedCount) add(more droppedCount) {
	if n.records == 0 {
		*n = more
		return
	}
	n.records += more.records
	n.last = max(n.last, more.last) // noTime is the smallest
	if n.first == noTime || more.first != noTime && more.first < n.first {
		n.first = more.first
	}
}

// counters are guarded by Store.mu.
type counters struct {
	appended, repeats, unwanted, damaged uint64
	commits, failures, rescues, written  uint64
	commitTime, lastCommit               time.Duration
	wear                                 wear
}

func (n *counters) committed(p *plan, took time.Duration) {
	n.appended += uint64(p.group.header.count)
	n.commits++
	n.written += uint64(p.written)
	n.commitTime += took
	n.lastCommit = took
	n.wear.note(time.Now(), n.written)
}

// Stats may be called at any time.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Bytes: s.live, MaxBytes: s.cfg.MaxSize, MaxRecords: s.cfg.MaxRecords,
		Appended: s.stats.appended, Repeats: s.stats.repeats, Unwanted: s.stats.unwanted, Damaged: s.stats.damaged,
		Commits: s.stats.commits, Failures: s.stats.failures, Rescues: s.stats.rescues,
		CommitTime: s.stats.commitTime, LastCommit: s.stats.lastCommit, Written: s.stats.written,
	}
	st.WrittenPerDay = s.stats.wear.perDay(time.Now(), s.stats.written)
	st.State, st.Reason, st.Since = s.state()
	st.Epoch, st.Notices = s.about.stats(), s.notices
	st.Aside = s.aside
	st.FileBytes = s.size()
	st.Compaction = s.compact.stats
	st.Compaction.Running = s.compact.run != nil
	st.DiskLow = s.headroom.low
	if free, total, err := diskFree(s.path); err == nil {
		st.DiskFree, st.MinFree = free, s.minFree(total)
	}
	kept := s.kept()
	st.Records, st.Kept, st.KeptBytes = uint64(s.total), uint64(kept.records), kept.bytes
	for _, name := range slices.Sorted(maps.Keys(s.cursors)) {
		st.Cursors = append(st.Cursors, s.cursorStats(s.cursors[name]))
	}
	return st
}

func (s *Store) state() (State, string, time.Time) {
	switch {
	case s.trouble != nil && isDiskFull(s.trouble):
		return StateFull, s.whyLow() + ": " + s.trouble.Error(), s.troubleAt
	case s.trouble != nil:
		return StateFailing, s.trouble.Error(), s.troubleAt
	case !s.fullSince.IsZero():
		return StateFull, s.whyFull(), s.fullSince
	}
	return StateOK, "", time.Time{}
}

// whyFull names who holds the oldest records.
func (s *Store) whyFull() string {
	if s.trouble != nil {
		return "the disk does not take records: " + s.trouble.Error()
	}
	if s.headroom.low && s.headroom.ceiling < s.cfg.MaxSize {
		return s.whyLow() + ", and the queue file has no room inside"
	}
	var holders []string
	for name, c := range s.cursors {
		if len(s.segments) > 0 && c.acked < s.segments[0].last {
			if c.held {
				name += " (no longer configured: forget it to free its records)"
			}
			holders = append(holders, name)
		}
	}
	slices.Sort(holders)
	limit := fmt.Sprintf("max_size of %d bytes", s.cfg.MaxSize)
	if s.cfg.MaxRecords > 0 && s.total+s.wanted.records > s.cfg.MaxRecords {
		limit = fmt.Sprintf("max_records of %d", s.cfg.MaxRecords)
	}
	return fmt.Sprintf("%s is used up by records not yet delivered by %s", limit, strings.Join(holders, ", "))
}

func (s *Store) cursorStats(c *Cursor) CursorStats {
	st := CursorStats{Name: c.name, Held: c.held, Acked: c.acked, WhenFull: Block}
	if c.drops && !c.held {
		st.WhenFull = DropOldest
	}
	lag := c.lag()
	st.Lag, st.LagBytes = lag.records, lag.bytes
	i := s.segmentAt(c.acked + 1)
	if c.held {
		st.Lag, st.LagBytes = s.end-c.acked, 0
		for _, seg := range s.segments[i:] {
			st.LagBytes += uint64(seg.bytes)
		}
	}
	if st.Lag > 0 && i < len(s.segments) {
		st.Oldest = fromNanos(s.segments[i].oldest)
	}
	for _, of := range slices.SortedFunc(maps.Keys(c.dropped), compareDropped) {
		st.Dropped = append(st.Dropped, c.dropped[of].from(s.ids.byID[of.device].key, of.reason))
	}
	return st
}

// Cursors lists those of the file, opened or held, by name.
func (s *Store) Cursors() []CursorStats { return s.Stats().Cursors }
