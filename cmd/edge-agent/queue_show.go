package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/internal/pattern"
	"github.com/mcp-edge/edge-agent/store"
)

// filterFlags choose records.
type filterFlags struct {
	Device []string `placeholder:"GLOB" help:"Only records of these devices: boiler-1, or boiler-*."`
	Stream []string `placeholder:"GLOB" help:"Only records of these streams, which are the names of polls, topics or rules."`
	From   string   `placeholder:"TIME" help:"Only records from this time on: 2026-11-22T05:08:00Z, 2026-11-22 05:08 in this machine's time zone, or 2h for two hours ago."`
	To     string   `placeholder:"TIME" help:"Only records before this time."`
}

// filter reads the flags; now is for times that are so long ago.
func (f *filterFlags) filter(now time.Time) (doctor.Filter, error) {
	out := doctor.Filter{Devices: f.Device, Streams: f.Stream}
	for _, globs := range []pattern.List{out.Devices, out.Streams} {
		for _, glob := range globs {
			if err := pattern.Check(glob); err != nil {
				return out, inputError{fmt.Errorf("%q %w", glob, err)}
			}
		}
	}
	var err error
	if out.From, err = parseMoment(f.From, now); err != nil {
		return out, inputError{fmt.Errorf("--from: %w", err)}
	}
	if out.To, err = parseMoment(f.To, now); err != nil {
		return out, inputError{fmt.Errorf("--to: %w", err)}
	}
	return out, nil
}

// parseMoment takes a time in words that people write; empty is none.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write it as 2026-11-22T05:08:00Z, as \"2026-11-22 05:08\", or as 2h for two hours ago", text)
}

// page asks a running agent for records.
func (t *queueTarget) page(ctx context.Context, f doctor.Filter, limit int, form doctor.Form) (p doctor.Page, err error) {
	query := url.Values{"device": f.Devices, "stream": f.Streams}
	query.Set("position", strconv.FormatUint(f.Position, 10))
	query.Set("limit", strconv.Itoa(min(limit, doctor.MaxPageRecords)))
	query.Set("exact", strconv.FormatBool(form == doctor.Exact))
	for name, at := range map[string]time.Time{"from": f.From, "to": f.To} {
		if !at.IsZero() {
			query.Set(name, at.Format(time.RFC3339Nano))
		}
	}
	return p, t.api.get(ctx, "/api/v1/queue/records?"+query.Encode(), &p)
}

// lines writes up to limit records (0: all) as JSON Lines, and returns how many.
func (t *queueTarget) lines(ctx context.Context, out io.Writer, f doctor.Filter, limit int, form doctor.Form, meter *meter) (n int, err error) {
	w := bufio.NewWriterSize(out, 64<<10)
	defer func() {
		if flushed := w.Flush(); err == nil && flushed != nil {
			err = fmt.Errorf("writing: %w", flushed)
		}
	}()
	if t.api != nil {
		return t.pages(ctx, w, f, limit, form, meter)
	}
	e := doctor.Encoder{Agent: t.agent, Form: form}
	oldest, newest := t.image.Range()
	var line []byte
	err = doctor.Each(ctx, t.image, f, func(position uint64) { meter.show(position-oldest+1, newest-oldest+1) }, func(item *store.Item) error {
		if limit > 0 && n == limit {
			return errEnough
		}
		n++
		line = append(e.Append(line[:0], item), '\n')
		_, err := w.Write(line)
		return err
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return n, err
}

func (t *queueTarget) pages(ctx context.Context, w *bufio.Writer, f doctor.Filter, limit int, form doctor.Form, meter *meter) (n int, err error) {
	first := uint64(0)
	for {
		ask := doctor.MaxPageRecords
		if limit > 0 {
			ask = min(ask, limit-n)
		}
		p, err := t.page(ctx, f, ask, form)
		if err != nil {
			return n, err
		}
		for _, line := range p.Records {
			if _, err := w.Write(append(line, '\n')); err != nil {
				return n, err
			}
		}
		n += len(p.Records)
		if first == 0 {
			first = max(f.Position, 1)
		}
		meter.show(p.Next-first, max(p.End, first)-first+1)
		if limit > 0 && n >= limit || p.Next > p.End {
			return n, nil
		}
		f.Position = p.Next
	}
}

type queueLsCommand struct {
	queueFlags
	JSON bool `help:"Print the list as JSON, for machines."`
}

// Help is what --help says besides.
func (queueLsCommand) Help() string {
	return `Records that are delivered already are listed, too, until their space is used again.

Examples:

  edge-agent queue ls -c /etc/edge-agent/edge-agent.toml
  edge-agent queue ls --data-dir /var/lib/edge-agent`
}

func (c queueLsCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	t, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	sums, err := t.sums(ctx, newMeter(errs, "reading the queue"))
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(sums.Sources)
	}
	return showSources(out, t, sums)
}

// sums goes through the whole queue.
func (t *queueTarget) sums(ctx context.Context, meter *meter) (doctor.Sums, error) {
	defer meter.end()
	all := doctor.Sums{Sources: []doctor.Source{}}
	first := uint64(0)
	for {
		var part doctor.Sums
		var err error
		if t.api != nil {
			err = t.api.get(ctx, "/api/v1/queue/sources?position="+strconv.FormatUint(all.Next, 10), &part)
		} else {
			part, err = doctor.ReadSums(ctx, t.image, t.agent, all.Next)
		}
		if err != nil {
			return all, err
		}
		all.Add(part)
		if len(part.Sources) > 0 && first == 0 {
			first = part.Next
		}
		meter.show(part.Next-min(first, part.Next), part.End-min(first, part.End)+1)
		if part.Next > part.End {
			all.Sort(t.agent)
			return all, nil
		}
	}
}

func showSources(out io.Writer, t *queueTarget, sums doctor.Sums) error {
	if len(sums.Sources) == 0 {
		_, err := fmt.Fprintln(out, "The queue is empty.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DEVICE\tSTREAM\tRECORDS\tNUMBERS\tFIRST\tLAST")
	foreign := false
	for _, s := range sums.Sources {
		device := plain(s.Device)
		switch {
		case s.Device == "": // see store.NamelessReport
			device = "(name lost)"
		case s.Agent != t.agent && s.Agent != "":
			device = plain(s.Agent) + "/" + device
			foreign = true
		}
		numbers := "-"
		if s.Records > 0 {
			numbers = fmt.Sprintf("%d–%d", s.FirstSeq, s.LastSeq)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", device, plain(s.Stream), grouped(s.Records+s.Gaps), numbers, toMinute(s.FirstTime), toMinute(s.LastTime))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if foreign {
		fmt.Fprintln(out, "\nA device with / was first stored by the agent before the /.")
	}
	if sums.Unreadable > 0 {
		fmt.Fprintf(out, "\n%s can't be read; edge-agent queue check tells more.\n", counted(sums.Unreadable, "record"))
	}
	return nil
}

type queuePeekCommand struct {
	queueFlags
	filterFlags
	Position uint64 `placeholder:"N" help:"Begin at this position in the queue. Unless given: at the oldest record."`
	N        int    `short:"n" default:"10" help:"Print at most so many records; 0 means all."`
}

// Help is what --help says besides.
func (queuePeekCommand) Help() string {
	return `One JSON object a line, as a file upstream writes them. Nothing is taken out of the queue.

Examples:

  edge-agent queue peek --device boiler-1 --from 1h
  edge-agent queue peek -n 0 --stream temps | jq .values.supply_temp`
}

func (c queuePeekCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	f, err := c.filter(time.Now())
	if err != nil {
		return err
	}
	if c.N < 0 {
		return inputError{fmt.Errorf("-n %d can't be; write how many records to print, or 0 for all", c.N)}
	}
	f.Position = c.Position
	t, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	meter := newMeter(errs, "looking")
	defer meter.end()
	n, err := t.lines(ctx, out, f, c.N, doctor.Plain, meter)
	if err == nil && n == 0 {
		meter.end()
		fmt.Fprintln(errs, "edge-agent: no record in the queue is like that")
	}
	return err
}

type queueExportCommand struct {
	queueFlags
	filterFlags
	Output string `short:"o" placeholder:"FILE" help:"Write to this file, which must not exist, instead of standard output."`
}

// Help is what --help says besides.
func (queueExportCommand) Help() string {
	return `One JSON object a line, with all that edge-agent queue import needs to make the same record of it.
Nothing is taken out of the queue. In the place of a record that can't be read stands a gap.

Examples:

  edge-agent queue export -o backup.jsonl
  edge-agent queue export --data-dir /var/lib/edge-agent --device press-* | gzip > press.jsonl.gz`
}

func (c queueExportCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) (err error) {
	f, err := c.filter(time.Now())
	if err != nil {
		return err
	}
	t, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	if t.agent == "" {
		return inputError{errors.New("whose records are these? The queue's file does not say: add -c FILE or --agent ID")}
	}
	if c.Output != "" {
		file, err := createFile(c.Output)
		if err != nil {
			return err
		}
		defer func() { err = file.finish(err) }()
		out = file
	}
	meter := newMeter(errs, "exporting")
	n, err := t.lines(ctx, out, f, 0, doctor.Exact, meter)
	meter.end()
	if err != nil {
		return fmt.Errorf("%s were exported, then: %w", counted(uint64(n), "record"), err)
	}
	fmt.Fprintf(errs, "exported %s\n", counted(uint64(n), "record"))
	return nil
}
