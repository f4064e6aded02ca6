package doctor

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// Queue is what Import puts records into: a store.Store whose Run runs.
type Queue interface {
	Log
	Epoch() record.Epoch
	Devices() []store.DeviceStats
	Source(key store.SourceKey) (*store.Source, error)
	Append(ctx context.Context, b store.Batch) (*store.Commit, error)
	Flush(ctx context.Context) error
}

// Imported is what became of the lines of an import.
type Imported struct {
	Lines    uint64    `json:"lines"` // read, without empty ones
	Stored   uint64    `json:"stored"`
	Known    uint64    `json:"known"` // were in the queue already
	Bad      uint64    `json:"bad"`   // were not stored
	Problems []Problem `json:"problems,omitempty"`
	// Stopped says why it has not come to the end, and Line where.
	Stopped string `json:"stopped,omitempty"`
	Line    uint64 `json:"line,omitempty"`
}

// Problem is a line that was not stored.
type Problem struct {
	Line    uint64 `json:"line"`
	Problem string `json:"problem"`
}

const (
	// maxProblems are told one by one; all are counted.
	maxProblems = 100

	// maxLine bounds a line, in bytes: a record of 16 MiB in base64, twice.
	maxLine = 48 << 20

	// Bounds of what is appended at a time.
	importBatch      = 256
	importBatchBytes = 256 << 10
)

// ErrImportFull ends an import for which the queue has had no room for a while.
var ErrImportFull = errors.New("the queue has no room for more")

// Import reads lines that an Encoder has written in Exact form, or in Plain form, and
// stores them behind what is in the queue, under the identity that they bear: those
// of this agent, too, as its own numbers are not given twice. own is its name. A line
// whose record is in the queue already is left out, so an import that has ended
// halfway can be repeated. patience is how long to wait for room.
//
// It takes memory for the identities of what is in the queue: a few words for each
// unbroken run of numbers. Beyond a million runs it stores repeats rather than take
// more. The error is that of reading, of the queue, or ErrImportFull; the result tells
// what was stored until then.
func Import(ctx context.Context, q Queue, own string, from io.Reader, patience time.Duration) (Imported, error) {
	im := importer{queue: q, own: own, patience: patience, last: make(map[string]uint64)}
	for _, d := range q.Devices() {
		im.last[d.Device] = d.Last
	}
	err := q.Flush(ctx) // what another import has just appended is seen, too
	if err == nil {
		err = im.learn(ctx)
	}
	if err == nil {
		err = im.read(ctx, from)
	}
	if err != nil {
		// What was counted is to be on disk, also when ctx has ended.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		err = errors.Join(err, im.settle(within))
		im.done.Stopped, im.done.Line = err.Error(), im.line
	}
	return im.done, err
}

type importer struct {
	queue    Queue
	own      string
	patience time.Duration
	last     map[string]uint64 // numbers given in this epoch, by device
	known    identities

	line   uint64
	done   Imported
	batch  []store.Entry
	bytes  int
	commit *store.Commit // of the batch before
}

// learn reads who is in the queue.
func (im *importer) learn(ctx context.Context) error {
	return Each(ctx, im.queue, Filter{}, nil, func(item *store.Item) error {
		key := item.Source.Key()
		im.known.add(identityOf(cmp.Or(key.Agent, im.own), key.Epoch, key.Device, item.Seq, item.Part, item.Gap))
		return nil
	})
}

func (im *importer) read(ctx context.Context, from io.Reader) error {
	r := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := readLine(r)
		line = bytes.TrimRight(line, "\r\n")
		im.line++
		switch {
		case errors.Is(err, errLongLine):
			im.done.Lines++
			im.problem(err)
		case len(bytes.TrimSpace(line)) > 0:
			if err := im.take(ctx, line); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return im.finish(ctx)
		}
		if err != nil && !errors.Is(err, errLongLine) {
			return errors.Join(fmt.Errorf("reading what is imported: %w", err), im.finish(ctx))
		}
	}
}

var errLongLine = fmt.Errorf("it has more than %d MiB", maxLine>>20)

// readLine reads a line, of which it keeps at most maxLine.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxLine; !long {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if long && (err == nil || errors.Is(err, io.EOF)) {
			return nil, errLongLine
		}
		return line, err
	}
}

func (im *importer) problem(err error) {
	im.done.Bad++
	if len(im.done.Problems) < maxProblems {
		im.done.Problems = append(im.done.Problems, Problem{Line: im.line, Problem: err.Error()})
	}
}

// take stores a line, or notes what is wrong with it. The error is the queue's.
func (im *importer) take(ctx context.Context, line []byte) error {
	im.done.Lines++
	var r record.Record
	var raw []byte
	err := r.ParseJSON(line, func(name string, value json.RawMessage) error {
		if name != rawMember {
			return fmt.Errorf("%q is not known here: was it written by a newer version?", name)
		}
		return json.Unmarshal(value, &raw)
	})
	if err == nil {
		err = im.check(&r)
	}
	if err != nil {
		im.problem(err)
		return nil
	}
	id := identityOf(r.Agent, r.Epoch, r.Device, r.Seq, r.Part, r.Gap)
	if im.known.has(id) {
		im.done.Known++
		return nil
	}
	source, err := im.queue.Source(store.SourceKey{Agent: r.Agent, Epoch: r.Epoch, Device: r.Device, Stream: r.Stream})
	if err != nil {
		return err
	}
	im.known.add(id)
	e := store.Entry{Source: source, Time: r.Time, Seq: r.Seq, Part: r.Part, Gap: r.Gap}
	if r.Gap == nil {
		e.Body = raw
		if raw == nil {
			e.Body = stored(&r)
		}
	}
	im.batch = append(im.batch, e)
	if im.bytes += len(e.Body); len(im.batch) >= importBatch || im.bytes >= importBatchBytes {
		return im.flush(ctx)
	}
	return nil
}

// stored is a record as intake stores it: what the queue knows beside it is left out.
func stored(r *record.Record) []byte {
	bare := *r
	bare.Agent, bare.Epoch, bare.Seq, bare.Part = "", 0, 0, 0
	return bare.Append(nil)
}

// check tells whether a record may be stored under the identity that it bears.
func (im *importer) check(r *record.Record) error {
	switch {
	case r.Agent == "":
		return errors.New("it does not say which agent it is of")
	case r.Epoch == 0:
		return errors.New("it has no epoch")
	case r.Gap == nil && r.Seq == 0:
		return errors.New("it has no number")
	case r.Epoch == im.queue.Epoch() && r.Gap == nil && r.Seq > im.last[r.Device]:
		return fmt.Errorf("the number %d of %s was never given out by this queue: the line comes from another copy of its directory", r.Seq, r.Device)
	}
	return nil
}

// flush appends the batch and waits for the one before: two are under way at most.
func (im *importer) flush(ctx context.Context) error {
	if len(im.batch) == 0 {
		return im.settle(ctx)
	}
	commit, err := im.append(ctx, im.batch)
	if errors.Is(err, store.ErrTooLarge) && len(im.batch) == 1 {
		im.problem(err)
		im.batch, im.bytes = im.batch[:0], 0
		return nil
	}
	if err != nil {
		return err
	}
	n := uint64(len(im.batch))
	im.batch, im.bytes = im.batch[:0], 0
	before := im.commit
	im.commit = commit
	im.done.Stored += n
	if before == nil {
		return nil
	}
	return before.Wait(ctx)
}

func (im *importer) append(ctx context.Context, entries []store.Entry) (*store.Commit, error) {
	within, cancel := context.WithTimeout(ctx, im.patience)
	defer cancel()
	commit, err := im.queue.Append(within, store.Batch{Entries: entries})
	if err != nil && errors.Is(within.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", ErrImportFull, err)
	}
	return commit, err
}

// settle waits until what was appended before is on disk.
func (im *importer) settle(ctx context.Context) error {
	if im.commit == nil {
		return nil
	}
	commit := im.commit
	im.commit = nil
	return commit.Wait(ctx)
}

func (im *importer) finish(ctx context.Context) error {
	return errors.Join(im.flush(ctx), im.settle(ctx))
}
