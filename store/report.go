package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// Report says what became of a damaged queue file. It stands beside the file as
// JSON.
type Report struct {
	Time        time.Time `json:"time"`
	File        string    `json:"file"`  // where the damaged file is now
	Why         string    `json:"why"`   // it was taken for damaged
	Epoch       string    `json:"epoch"` // that has begun
	EpochBefore string    `json:"epoch_before,omitempty"`
	Bytes       int64     `json:"bytes"`
	BadPages    int       `json:"bad_pages"` // that the file's own tree leads to, or what on them could not be read

	Saved    uint64 `json:"saved"`    // records taken over
	Bad      uint64 `json:"bad"`      // of the segments taken over, records that can't be read
	Missing  uint64 `json:"missing"`  // records of which nothing is left, not counting Bad
	Before   uint64 `json:"before"`   // positions before the first one found, which may have been delivered: no cursor's place was found
	Behind   uint64 `json:"behind"`   // records that the witness knew behind all that was found
	Nameless uint64 `json:"nameless"` // records whose device's name is lost: they are in the damaged file only
	Letters  int    `json:"letters"`  // commands taken over
	Doubted  int    `json:"doubted"`  // commands of which it can't be told which of several states was the last

	Devices         []DeviceReport   `json:"devices"`
	NamelessSources []NamelessReport `json:"nameless_sources,omitempty"`
	Cursors         []string         `json:"cursors"`  // whose place was found: others begin at the oldest record
	Channels        int              `json:"channels"` // whose numbers were found
}

// DeviceReport is what the file held of a device.
type DeviceReport struct {
	Agent  string    `json:"agent,omitempty"` // empty: this one
	Epoch  string    `json:"epoch"`
	Device string    `json:"device"`
	Saved  uint64    `json:"saved"`
	First  uint64    `json:"first_seq,omitempty"` // of those saved
	Last   uint64    `json:"last_seq,omitempty"`
	From   time.Time `json:"from,omitzero"` // times of those saved
	To     time.Time `json:"to,omitzero"`
	// Missing are the numbers that are known to be missing, the first ones of them,
	// with the times of the records before and behind.
	Missing      []record.Gap `json:"missing,omitempty"`
	MissingCount uint64       `json:"missing_count"`
}

// NamelessReport is what the file held of a source whose name is lost.
type NamelessReport struct {
	Source  uint32    `json:"source"` // its number in the file
	Records uint64    `json:"records"`
	From    time.Time `json:"from,omitzero"`
	To      time.Time `json:"to,omitzero"`
}

// maxListed bounds the gaps of a device in a report.
const maxListed = 64

// deviceTally is a DeviceReport that is being counted.
type deviceTally struct {
	DeviceReport
	id       uint32 // of its first source
	seen     uint64 // last number
	position uint64 // of it
	time     int64
}

func (d *deviceTally) add(e *envelope) {
	if !e.gap {
		d.Saved++
		if d.First == 0 || e.seq < d.First {
			d.First = e.seq
		}
		d.Last = max(d.Last, e.seq)
	}
	widenTimes(&d.From, &d.To, e.time)
}

func widenTimes(from, to *time.Time, t int64) {
	if t == noTime {
		return
	}
	at := fromNanos(t)
	if from.IsZero() || at.Before(*from) {
		*from = at
	}
	if to.IsZero() || at.After(*to) {
		*to = at
	}
}

func (d *deviceTally) lacks(g record.Gap) {
	d.MissingCount += g.Count
	if len(d.Missing) < maxListed {
		d.Missing = append(d.Missing, g)
	}
}

func sortReports(list []DeviceReport) {
	slices.SortFunc(list, func(a, b DeviceReport) int {
		return cmp.Or(cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Epoch, b.Epoch))
	})
}
