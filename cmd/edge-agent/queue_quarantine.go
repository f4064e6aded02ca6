package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

type quarantineCommand struct {
	List   quarantineListCommand   `cmd:"" help:"List records that could not be delivered, and why."`
	Retry  quarantineRetryCommand  `cmd:"" help:"Send them again."`
	Export quarantineExportCommand `cmd:"" help:"Write them as JSON Lines."`
	Delete quarantineDeleteCommand `cmd:"" help:"Delete them."`
}

// quarantineTarget is a quarantine, of a running agent or a stopped one.
type quarantineTarget struct {
	queueTarget
	files *pipeline.Quarantine // of a stopped one
	lock  io.Closer
}

func (f *queueFlags) openQuarantine(ctx context.Context) (*quarantineTarget, error) {
	found, err := f.find()
	if err != nil {
		return nil, err
	}
	t := &quarantineTarget{queueTarget: *found}
	if t.dir == "" {
		return t, t.call(ctx, f)
	}
	switch t.lock, err = store.Lock(t.dir); {
	case err == nil:
		t.files = pipeline.NewQuarantine(filepath.Join(t.dir, pipeline.QuarantineName))
		return t, nil
	case errors.Is(err, store.ErrLocked):
		return t, t.call(ctx, f)
	}
	return nil, inputError{err}
}

func (t *quarantineTarget) close() {
	if t.lock != nil {
		_ = t.lock.Close() // that lets go of it, however it ends
	}
}

// each calls do for all entries, oldest first.
func (t *quarantineTarget) each(ctx context.Context, do func(*pipeline.Quarantined) error) error {
	for from := int64(0); ; {
		var p pipeline.QuarantinePage
		var err error
		if t.files != nil {
			p, err = t.files.Page(from, doctor.MaxPageRecords)
		} else {
			err = t.api.get(ctx, "/api/v1/queue/quarantine?limit="+strconv.Itoa(doctor.MaxPageRecords)+"&position="+strconv.FormatInt(from, 10), &p)
		}
		if err != nil {
			return err
		}
		for i := range p.Entries {
			if err := do(&p.Entries[i]); err != nil {
				return err
			}
		}
		if from = p.Next; from == 0 {
			return nil
		}
	}
}

type quarantineListCommand struct {
	queueFlags
	JSON bool `help:"Print one JSON object an entry, with the record, for machines."`
}

// Help is what --help says besides.
func (quarantineListCommand) Help() string {
	return `A record comes here when its destination refuses it for the record's own fault, or when it can't be
read. The records behind it go on.`
}

func (c quarantineListCommand) Run(ctx context.Context, out io.Writer) error {
	t, err := c.openQuarantine(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	w := bufio.NewWriter(out)
	if c.JSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		err = t.each(ctx, func(e *pipeline.Quarantined) error { return enc.Encode(e) })
		return errors.Join(err, w.Flush())
	}
	n := uint64(0)
	err = t.each(ctx, func(e *pipeline.Quarantined) error {
		n++
		return showEntry(w, e)
	})
	switch {
	case err != nil:
	case n == 0:
		fmt.Fprintln(w, "Nothing is in quarantine.")
	default:
		fmt.Fprintf(w, "\n%s. Once the cause is mended: edge-agent queue quarantine retry --yes\n", counted(n, "record"))
	}
	return errors.Join(err, w.Flush())
}

// showEntry takes two lines: which record, and why.
func showEntry(w io.Writer, e *pipeline.Quarantined) error {
	which := ""
	var r record.Record
	if r.ParseJSON(e.Record, func(string, json.RawMessage) error { return nil }) == nil {
		which = fmt.Sprintf("  %s #%d", plain(r.Device), r.Seq)
	}
	again := ""
	if e.Tries > 0 {
		again = fmt.Sprintf(" (refused again %s)", times(uint64(e.Tries)))
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s%s\n    %s%s\n", plain(e.ID), shortTime(e.At), plain(e.Route), which, plain(e.Reason), again)
	return err
}

type quarantineExportCommand struct {
	queueFlags
	Output string `short:"o" placeholder:"FILE" help:"Write to this file, which must not exist, instead of standard output."`
}

// Help is what --help says besides.
func (quarantineExportCommand) Help() string {
	return `One JSON object an entry: its "record", and "reason" why, "route" and "at" when it was set aside. The
entries stay in quarantine.`
}

func (c quarantineExportCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) (err error) {
	t, err := c.openQuarantine(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	if c.Output != "" {
		file, err := createFile(c.Output)
		if err != nil {
			return err
		}
		defer func() { err = file.finish(err) }()
		out = file
	}
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	n := uint64(0)
	err = t.each(ctx, func(e *pipeline.Quarantined) error {
		n++
		return enc.Encode(e)
	})
	if err = errors.Join(err, w.Flush()); err != nil {
		return err
	}
	fmt.Fprintf(errs, "exported %s\n", counted(n, "record"))
	return nil
}

// entryFlags choose entries.
type entryFlags struct {
	ID  []string `name:"id" placeholder:"ID" help:"Only the entries with these ids, as list shows them."`
	Yes bool     `help:"All of them."`
}

// body is how the admin API wants to be told.
func (f *entryFlags) body() ([]byte, error) {
	switch {
	case f.Yes && len(f.ID) > 0:
		return nil, inputError{errors.New("--yes means all, and --id some: give one of the two")}
	case f.Yes:
		return []byte(`{"all": true}`), nil
	case len(f.ID) == 0:
		return nil, inputError{errors.New("which ones? Give their ids, as list shows them (--id ID,ID), or --yes for all")}
	}
	return json.Marshal(map[string][]string{"ids": f.ID})
}

type quarantineDeleteCommand struct {
	queueFlags
	entryFlags
}

// Help is what --help says besides.
func (quarantineDeleteCommand) Help() string {
	return `They are gone for good; export them first if that may be regretted.

Example:

  edge-agent queue quarantine export -o refused.jsonl && edge-agent queue quarantine delete --yes`
}

func (c quarantineDeleteCommand) Run(ctx context.Context, out io.Writer) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	t, err := c.openQuarantine(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	var answer struct {
		Deleted int `json:"deleted"`
	}
	if t.files != nil {
		if err = becomeOwner(t.dir); err == nil {
			answer.Deleted, err = t.files.Delete(c.ID)
		}
		if err == nil && answer.Deleted == 0 && !c.Yes {
			err = inputError{pipeline.ErrNoEntry}
		}
	} else if err = t.authorise(&c.queueFlags); err == nil {
		err = t.api.call(ctx, http.MethodDelete, "/api/v1/queue/quarantine", bytes.NewReader(body), &answer)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "deleted %s\n", counted(uint64(answer.Deleted), "record"))
	return err
}

type quarantineRetryCommand struct {
	queueFlags
	entryFlags
	NoWait bool `help:"Don't wait for what becomes of them."`
}

// Help is what --help says besides.
func (quarantineRetryCommand) Help() string {
	return `The running agent sends them again on their route. What is delivered leaves the quarantine; what is
refused again stays there, with the new reason. Ctrl-C ends the waiting only.

Exit code: 0 all were delivered; 1 some were refused again, or the input is wrong; 2 it could not be done.`
}

func (c quarantineRetryCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	t, err := c.openQuarantine(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	if t.files != nil {
		return errors.New("the agent is stopped, and it is the agent that sends them: start it, then retry")
	}
	if err := t.authorise(&c.queueFlags); err != nil {
		return err
	}
	before := t.status.Retry
	var answer struct {
		Retrying int `json:"retrying"`
	}
	if err := t.api.call(ctx, http.MethodPost, "/api/v1/queue/quarantine/retry", bytes.NewReader(body), &answer); err != nil {
		return err
	}
	if c.NoWait {
		_, err := fmt.Fprintf(out, "%s on the way\n", counted(uint64(answer.Retrying), "record"))
		return err
	}
	return t.await(ctx, out, newMeter(errs, "sending again"), before, answer.Retrying)
}

// await waits until nothing is on the way any more.
func (t *quarantineTarget) await(ctx context.Context, out io.Writer, meter *meter, before pipeline.RetryStatus, total int) error {
	defer meter.end()
	for {
		if err := t.api.get(ctx, "/api/v1/queue", &t.status); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("no longer waiting; the agent goes on")
			}
			return err
		}
		now := t.status.Retry
		if now.Waiting == 0 {
			meter.end()
			refused := now.Refused - before.Refused
			fmt.Fprintf(out, "delivered %s, %s refused again\n", counted(now.Delivered-before.Delivered, "record"), grouped(refused))
			if refused > 0 {
				return errSilent
			}
			return nil
		}
		meter.show(uint64(max(total-now.Waiting, 0)), uint64(total))
		select {
		case <-ctx.Done():
			return fmt.Errorf("no longer waiting; the agent goes on with %s", counted(uint64(now.Waiting), "record"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
