package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/store"
)

type queueStatusCommand struct {
	queueFlags
	JSON bool `help:"Print all of it as JSON, for machines."`
}

// Help is what --help says besides.
func (queueStatusCommand) Help() string {
	return `The queue of a running agent is asked for through its admin API; that of a stopped one is read
from its files, of which not a byte is changed.

Examples:

  edge-agent queue status -c /etc/edge-agent/edge-agent.toml
  edge-agent queue status --data-dir /var/lib/edge-agent`
}

func (c queueStatusCommand) Run(ctx context.Context, out io.Writer) error {
	t, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	st := t.read()
	if c.JSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(st)
	}
	return showStatus(out, t, &st, time.Now())
}

// read is the status of the queue, running or not.
func (t *queueTarget) read() doctor.Status {
	if t.api != nil {
		return t.status
	}
	st := doctor.Status{Agent: t.agent, Epoch: t.image.Epoch().String(), File: t.image.Path(), Store: t.image.Stats()}
	st.Quarantine = pipeline.NewQuarantine(filepath.Join(t.dir, pipeline.QuarantineName)).Stats()
	if whole, err := filepath.Abs(st.File); err == nil {
		st.File = whole
	}
	if t.file == nil {
		return st
	}
	st.Store.MaxBytes = t.file.Store.MaxSize
	used := t.routes()
	for i := range st.Store.Cursors {
		cursor := &st.Store.Cursors[i]
		cursor.Held = !used[cursor.Name]
	}
	return st
}

func showStatus(out io.Writer, t *queueTarget, st *doctor.Status, now time.Time) error {
	s := &st.Store
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "queue\t%s%s\n", st.File, t.whose())
	switch {
	case !st.Running:
		fmt.Fprintln(w, "state\tthe agent is stopped; this is what its file says")
	case s.State == store.StateOK:
		fmt.Fprintf(w, "state\tok, running for %s\n", spell(now.Sub(st.Started)))
	default:
		fmt.Fprintf(w, "state\t%s for %s: %s\n", s.State, spell(now.Sub(s.Since)), plain(s.Reason))
	}
	fmt.Fprintf(w, "stored\t%s, %s%s\n", counted(s.Records, "record"), sized(s.Bytes), ofLimit(s))
	if s.Kept > 0 {
		fmt.Fprintf(w, "kept\t%s of these, %s, are delivered and there for replay\n", counted(s.Kept, "record"), sized(s.KeptBytes))
	}
	free := ""
	if s.Compaction.Free >= 1<<20 {
		free = fmt.Sprintf(", with %s free inside", sized(s.Compaction.Free))
	}
	fmt.Fprintf(w, "file\t%s%s\n", sized(s.FileBytes), free)
	if s.Epoch.Reason != "" {
		fmt.Fprintf(w, "numbers\tanew since %s: %s\n", shortTime(s.Epoch.Since), plain(s.Epoch.Reason))
	}
	if st.Running {
		showWork(w, s)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := showCursors(out, t, st, now); err != nil {
		return err
	}
	return showAdvice(out, t, st)
}

func ofLimit(s *store.Stats) string {
	if s.MaxBytes <= 0 {
		return ""
	}
	return fmt.Sprintf(" of %s (%d %%)", sized(s.MaxBytes), 100*s.Bytes/s.MaxBytes)
}

// showWork is what the agent has done since it started.
func showWork(w io.Writer, s *store.Stats) {
	aDay := ""
	if s.WrittenPerDay > 0 {
		aDay = fmt.Sprintf(", lately %s a day", sized(int64(s.WrittenPerDay)))
	}
	fmt.Fprintf(w, "written\t%s to disk since the start%s\n", sized(int64(s.Written)), aDay)
	if s.Damaged > 0 {
		fmt.Fprintf(w, "damage\t%s could not be read since the start\n", counted(s.Damaged, "record"))
	}
	if s.Failures > 0 {
		fmt.Fprintf(w, "disk\t%s failed and had to be tried again; the file was written anew %s\n", counted(s.Failures, "commit"), times(s.Rescues))
	}
	if s.Unwanted > 0 {
		fmt.Fprintf(w, "unwanted\t%s that no route takes were freed since the start\n", counted(s.Unwanted, "record"))
	}
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%s times", grouped(n))
}

// showCursors is a line for each route and upstream.
func showCursors(out io.Writer, t *queueTarget, st *doctor.Status, now time.Time) error {
	if len(st.Store.Cursors) == 0 {
		_, err := fmt.Fprintln(out, "\nNo route reads from this queue.")
		return err
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROUTE/UPSTREAM\tTO DELIVER\tSIZE\tOLDEST\tWHEN FULL")
	for i := range st.Store.Cursors {
		c := &st.Store.Cursors[i]
		oldest := "-"
		if c.Lag > 0 && !c.Oldest.IsZero() {
			oldest = spell(now.Sub(c.Oldest)) + " ago"
		}
		when := c.WhenFull
		switch {
		case c.Held && (st.Running || t.file != nil):
			when = "held"
		case !st.Running:
			when = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", plain(c.Name), grouped(c.Lag), sized(int64(c.LagBytes)), oldest, when)
	}
	return w.Flush()
}

// showDropped says what a route has lost to the bounds of the queue.
func showDropped(w io.Writer, c *store.CursorStats) {
	var first, last time.Time
	devices := make(map[string]bool)
	records := uint64(0)
	for _, d := range c.Dropped {
		records += d.Records
		devices[d.Agent+"/"+d.Device] = true
		if first.IsZero() || d.First.Before(first) {
			first = d.First
		}
		if d.Last.After(last) {
			last = d.Last
		}
	}
	if records > 0 {
		fmt.Fprintf(w, "\n%s: %s of %s dropped since the start,\nfrom %s to %s\n",
			plain(c.Name), counted(records, "record"), counted(uint64(len(devices)), "device"), shortTime(first), shortTime(last))
	}
}

// showAdvice is what somebody should know or do.
func showAdvice(out io.Writer, t *queueTarget, st *doctor.Status) error {
	var text strings.Builder
	for _, notice := range st.Store.Notices {
		fmt.Fprintf(&text, "\n%s\n", plain(notice))
	}
	if n := st.Quarantine.Entries; n > 0 {
		fmt.Fprintf(&text, "\n%s could not be delivered: edge-agent queue quarantine list\n", counted(uint64(n), "record"))
	}
	for i := range st.Store.Cursors {
		c := &st.Store.Cursors[i]
		showDropped(&text, c)
		if c.Held && (st.Running || t.file != nil) {
			fmt.Fprintf(&text, "\n%s is no route of the configuration any more, and keeps what it has not\ndelivered. To give that up: edge-agent queue forget %s\n", plain(c.Name), plain(c.Name))
		}
	}
	if !st.Running && cmp.Or(st.Store.Records, 0) > 0 {
		text.WriteString("\nWhether all of it can be read: edge-agent queue check\n")
	}
	_, err := io.WriteString(out, text.String())
	return err
}
