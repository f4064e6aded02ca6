// Package doctor looks at a queue for people and their tools: what is in it, as
// lines of JSON that can be taken back in, and as sums. It works the same on a
// running agent's store and on the files of a stopped one.
package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pattern"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// Log is a queue to be looked at: a store.Store, or a store.Image of a stopped
// agent.
type Log interface {
	Browse(ctx context.Context, q store.Query) iter.Seq2[store.Item, error]
	Count(ctx context.Context, from uint64, bytes int) (store.Tally, error)
	Range() (oldest, newest uint64)
}

var (
	_ Log = (*store.Store)(nil)
	_ Log = (*store.Image)(nil)
)

// Filter chooses records. The zero value takes all.
type Filter struct {
	Devices, Streams pattern.List
	From, To         time.Time // of the record; From is taken, To is not
	Position         uint64    // in the log, to begin at
}

// query asks the store for what the filter takes, up to a position.
func (f *Filter) query(to uint64, progress func(uint64)) store.Query {
	q := store.Query{From: f.Position, To: to, Since: f.From, Until: f.To, Progress: progress}
	if len(f.Devices)+len(f.Streams) > 0 {
		q.Match = func(key store.SourceKey) bool { return f.Devices.Match(key.Device) && f.Streams.Match(key.Stream) }
	}
	return q
}

// Form is how a record is written.
type Form int

// Forms.
const (
	Plain Form = iota // as it leaves the agent
	Exact             // with all that Import needs to make the same record of it
)

// Encoder turns what is in the log into lines of JSON. It may not be used
// concurrently.
type Encoder struct {
	Agent string // whose log it is
	Form  Form

	record record.Record
	bytes  []byte
}

// rawMember holds a record's bytes in an Exact line where the rest does not say it
// all: the record can't be read, or was made by a newer version.
const rawMember = "raw"

// Append appends the item as one JSON object, without a newline.
func (e *Encoder) Append(b []byte, item *store.Item) []byte {
	r := &e.record
	key := item.Source.Key()
	raw := false
	switch {
	case item.Gap != nil:
		*r = record.Record{Stream: record.GapStream, Gap: item.Gap, Points: r.Points[:0]}
	case e.read(item.Body) != nil:
		*r = record.Record{Stream: key.Stream, Quality: record.Bad, Points: r.Points[:0]}
		if raw = e.Form == Exact; !raw {
			r.Payload, r.ContentType = item.Body, "application/protobuf"
		}
	default:
		raw = e.Form == Exact && !e.saysAll(item.Body)
	}
	r.Agent, r.Epoch, r.Device, r.Stream = key.Agent, key.Epoch, key.Device, key.Stream
	if r.Agent == "" {
		r.Agent = e.Agent
	}
	r.Seq, r.Part = item.Seq, item.Part
	if r.Time.IsZero() {
		r.Time = item.Time.UTC()
	}
	if e.Form == Plain {
		return r.AppendJSON(b)
	}
	b = r.AppendExact(b)
	if raw {
		b = append(b[:len(b)-1], `,"`+rawMember+`":`...)
		text, err := json.Marshal(item.Body)
		if err != nil { // bytes are base64, always
			text = []byte(`""`)
		}
		b = append(append(b, text...), '}')
	}
	return b
}

func (e *Encoder) read(body []byte) error { return e.record.Unmarshal(body) }

// saysAll tells whether the record that was read is all of body: protobuf of the
// same content has the same length.
func (e *Encoder) saysAll(body []byte) bool {
	var c record.Checker
	e.bytes = e.record.Append(e.bytes[:0])
	return len(e.bytes) == len(body) && c.Check(&e.record) == nil
}

// Page is a part of what a Filter takes; it is what the admin API answers.
type Page struct {
	Records []json.RawMessage `json:"records"`
	Next    uint64            `json:"next"` // position to go on from; beyond End there is no more
	End     uint64            `json:"end"`  // position of the last record
}

// Bounds of a Page.
const (
	MaxPageRecords = 1000
	maxPageBytes   = 4 << 20
	maxPageScan    = 1 << 16 // records looked through
)

// errEnough ends a page before its last position.
var errEnough = errors.New("enough")

// ReadPage reads the next of what f takes, at most limit records and about 4 MiB.
func ReadPage(ctx context.Context, log Log, f Filter, e *Encoder, limit int) (Page, error) {
	oldest, newest := log.Range()
	p := Page{Records: []json.RawMessage{}, Next: max(f.Position, oldest, 1), End: newest}
	to := min(newest, p.Next+maxPageScan-1)
	size := 0
	err := each(ctx, log, f, to, nil, func(item *store.Item) error {
		p.Next = item.Position + 1
		line := e.Append(nil, item)
		p.Records = append(p.Records, line)
		if size += len(line); size > maxPageBytes || len(p.Records) >= max(limit, 1) {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return p, nil
	case err != nil:
		return p, err
	}
	p.Next = max(p.Next, to+1)
	return p, nil
}

// Each calls do for what f takes, in order; progress now and then with the position
// reached. The item is valid during the call.
func Each(ctx context.Context, log Log, f Filter, progress func(position uint64), do func(*store.Item) error) error {
	_, newest := log.Range()
	if newest == 0 {
		return nil
	}
	return each(ctx, log, f, newest, progress, do)
}

func each(ctx context.Context, log Log, f Filter, to uint64, progress func(uint64), do func(*store.Item) error) error {
	if f.Position > to || to == 0 {
		return nil
	}
	for item, err := range log.Browse(ctx, f.query(to, progress)) {
		if err != nil {
			return err
		}
		if err := do(&item); err != nil {
			return err
		}
	}
	return nil
}
