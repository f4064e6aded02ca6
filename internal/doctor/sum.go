package doctor

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/store"
)

// Source is one stream of a device, as it stands in the log.
type Source struct {
	Agent     string    `json:"agent"`
	Epoch     string    `json:"epoch"`
	Device    string    `json:"device"`
	Stream    string    `json:"stream"`
	Records   uint64    `json:"records"`
	Gaps      uint64    `json:"gaps,omitempty"` // announcements of missing records
	Bytes     uint64    `json:"bytes"`
	FirstSeq  uint64    `json:"first_seq,omitempty"`
	LastSeq   uint64    `json:"last_seq,omitempty"`
	FirstTime time.Time `json:"first_time,omitzero"`
	LastTime  time.Time `json:"last_time,omitzero"`
}

// Sums are a part of the log summed up; it is what the admin API answers.
type Sums struct {
	Sources    []Source `json:"sources"`
	Unreadable uint64   `json:"unreadable"` // records that can't be read
	Next       uint64   `json:"next"`       // position to go on from; beyond End there is no more
	End        uint64   `json:"end"`
}

// scanBytes is how much one ReadSums looks through, in bytes.
const scanBytes = 16 << 20

// ReadSums sums up some 16 MiB of the log, from a position on; agent is whose log it
// is.
func ReadSums(ctx context.Context, log Log, agent string, from uint64) (Sums, error) {
	oldest, _ := log.Range()
	tally, err := log.Count(ctx, max(from, oldest), scanBytes)
	if err != nil {
		return Sums{}, err
	}
	sums := Sums{Sources: []Source{}, Unreadable: tally.Unreadable, Next: tally.Next, End: tally.End}
	for _, c := range tally.Sources {
		sums.Sources = append(sums.Sources, Source{
			Agent: cmp.Or(c.Key.Agent, agent), Epoch: c.Key.Epoch.String(), Device: c.Key.Device, Stream: c.Key.Stream,
			Records: c.Records, Gaps: c.Gaps, Bytes: c.Bytes,
			FirstSeq: c.FirstSeq, LastSeq: c.LastSeq, FirstTime: c.FirstTime, LastTime: c.LastTime,
		})
	}
	return sums, nil
}

// Add adds the part of the log that follows.
func (s *Sums) Add(behind Sums) {
	s.Unreadable += behind.Unreadable
	s.Next, s.End = behind.Next, behind.End
	for _, more := range behind.Sources {
		i := slices.IndexFunc(s.Sources, more.same)
		if i < 0 {
			s.Sources = append(s.Sources, more)
			continue
		}
		s.Sources[i].add(more)
	}
}

func (s Source) same(o Source) bool {
	return s.Agent == o.Agent && s.Epoch == o.Epoch && s.Device == o.Device && s.Stream == o.Stream
}

func (s *Source) add(behind Source) {
	s.Records += behind.Records
	s.Gaps += behind.Gaps
	s.Bytes += behind.Bytes
	if s.FirstSeq == 0 {
		s.FirstSeq = behind.FirstSeq
	}
	if behind.LastSeq != 0 {
		s.LastSeq = behind.LastSeq
	}
	s.LastTime = behind.LastTime
}

// Sort puts the sources in the order of agent (own first), device, stream and time.
func (s *Sums) Sort(own string) {
	other := func(s *Source) int {
		if s.Agent == own {
			return 0
		}
		return 1
	}
	slices.SortFunc(s.Sources, func(a, b Source) int {
		return cmp.Or(other(&a)-other(&b), cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Stream, b.Stream), a.FirstTime.Compare(b.FirstTime))
	})
}

// Status is what an operator sees of a queue; it is the answer of /api/v1/queue.
type Status struct {
	Agent   string    `json:"agent,omitempty"`
	Epoch   string    `json:"epoch"`
	File    string    `json:"file"`
	Running bool      `json:"running"`
	Started time.Time `json:"started,omitzero"` // the agent, since when counters count

	Store      store.Stats              `json:"store"`
	Quarantine pipeline.QuarantineStats `json:"quarantine"`
	Retry      pipeline.RetryStatus     `json:"retry"`
}
