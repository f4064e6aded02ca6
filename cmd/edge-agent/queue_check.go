package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

type queueCheckCommand struct {
	queueFlags
	JSON bool `help:"Print one JSON object a finding, for machines."`
}

// Help is what --help says besides.
func (queueCheckCommand) Help() string {
	return `Reads each page and each record of a stopped agent's queue, and holds checksums, the numbers of
the records, what the routes have still to get, and the commands against one another. Nothing is changed.
While the agent runs, only the records' checksums are looked at.

Exit code: 0 nothing is wrong; 1 something is; 2 it could not be checked.`
}

// maxFindings are printed; the rest is counted.
const maxFindings = 1000

func (c queueCheckCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	t, err := c.open(ctx)
	if errors.Is(err, store.ErrDamaged) {
		fmt.Fprintln(out, err)
		return errSilent
	}
	if err != nil {
		return notInput(err)
	}
	defer t.close()
	meter := newMeter(errs, "checking")
	defer meter.end()
	if t.api != nil {
		return c.running(ctx, out, t, meter)
	}
	found := 0
	survey, err := t.image.Check(ctx, func(f store.Finding) {
		if found++; found > maxFindings {
			return
		}
		meter.end()
		if c.JSON {
			_ = json.NewEncoder(out).Encode(findingJSON(&f))
			return
		}
		fmt.Fprintln(out, inWords(&f))
	}, func(done, total int64) { meter.show(uint64(done), uint64(total)) })
	meter.end()
	switch {
	case err != nil:
		return notInput(err)
	case found > maxFindings:
		fmt.Fprintf(errs, "and %s more\n", counted(uint64(found-maxFindings), "finding"))
	}
	if !c.JSON {
		fmt.Fprintf(out, "checked %s of %s, %s, %s, %s: ", counted(survey.Records, "record"), counted(uint64(survey.Devices), "device"),
			sized(survey.Bytes), counted(uint64(survey.Cursors), "route"), counted(uint64(survey.Letters), "command"))
		if found == 0 {
			fmt.Fprintln(out, "nothing is wrong")
		} else {
			fmt.Fprintln(out, counted(uint64(found), "finding"))
		}
	}
	if found > 0 {
		return errSilent
	}
	return nil
}

// running has the agent read all of its records.
func (c queueCheckCommand) running(ctx context.Context, out io.Writer, t *queueTarget, meter *meter) error {
	sums, err := t.sums(ctx, meter)
	if err != nil {
		return notInput(err)
	}
	records := uint64(0)
	for _, s := range sums.Sources {
		records += s.Records + s.Gaps
	}
	const rest = "The agent runs: numbers and the file's structure are checked when it is stopped."
	if sums.Unreadable > 0 {
		fmt.Fprintf(out, "%s can't be read, beside %s that can.\n%s\n", counted(sums.Unreadable, "record"), grouped(records), rest)
		return errSilent
	}
	_, err = fmt.Fprintf(out, "read %s: nothing is wrong with them.\n%s\n", counted(records, "record"), rest)
	return err
}

// notInput makes an error one that says that the check could not run: exit code 1
// is for findings.
func notInput(err error) error {
	var input inputError
	if errors.As(err, &input) {
		return input.error
	}
	return err
}

// inWords says what is wrong, with what, and when.
func inWords(f *store.Finding) string {
	device := plain(f.Source.Device)
	switch f.Kind {
	case store.FoundMeta:
		return "One of the two pages that say where everything is, is damaged: the last commit may be missing."
	case store.FoundSegment:
		return fmt.Sprintf("The header of the records from position %d on is damaged; they are read one by one.", f.From)
	case store.FoundUnreadable:
		if device == "" {
			return fmt.Sprintf("%s at %s can't be read.", counted(f.Records, "record"), span("position", f.From, f.To))
		}
		return fmt.Sprintf("  of %s: %s%s can't be read.", device, span("number", f.FirstSeq, f.LastSeq), between(f))
	case store.FoundMissing:
		return fmt.Sprintf("%s: %s%s not there, and nothing says why.", device, span("number", f.FirstSeq, f.LastSeq), between(f))
	case store.FoundTwice:
		return fmt.Sprintf("%s: the number %d comes again, or late%s.", device, f.FirstSeq, between(f))
	case store.FoundHole:
		return fmt.Sprintf("%s: %s at %s not there, which it has still to get.", plain(f.Name), counted(f.Records, "record"), span("position", f.From, f.To))
	case store.FoundCursor:
		return fmt.Sprintf("%s: its place is %d, and the last record stands at %d.", plain(f.Name), f.From, f.To)
	case store.FoundMailbox:
		return fmt.Sprintf("The command %s can't be read.", plain(f.Name))
	}
	return string(f.Kind)
}

func span(what string, from, to uint64) string {
	if from == to {
		return fmt.Sprintf("%s %d", what, from)
	}
	return fmt.Sprintf("%ss %d to %d", what, from, to)
}

func between(f *store.Finding) string {
	switch {
	case !f.After.IsZero() && !f.Before.IsZero():
		return fmt.Sprintf(", between %s and %s,", shortTime(f.After), shortTime(f.Before))
	case !f.After.IsZero():
		return fmt.Sprintf(", after %s,", shortTime(f.After))
	case !f.Before.IsZero():
		return fmt.Sprintf(", before %s,", shortTime(f.Before))
	}
	return ""
}

// findingLine is a finding for machines.
type findingLine struct {
	Finding   string    `json:"finding"`
	Name      string    `json:"name,omitempty"` // of a route and upstream, or a command
	Agent     string    `json:"agent,omitempty"`
	Device    string    `json:"device,omitempty"`
	FirstSeq  uint64    `json:"first_seq,omitempty"`
	LastSeq   uint64    `json:"last_seq,omitempty"`
	Records   uint64    `json:"records,omitempty"`
	After     time.Time `json:"after,omitzero"`
	Before    time.Time `json:"before,omitzero"`
	Positions []uint64  `json:"positions,omitempty"` // first and last
}

func findingJSON(f *store.Finding) findingLine {
	line := findingLine{
		Finding: string(f.Kind), Name: f.Name, Agent: f.Source.Agent, Device: f.Source.Device,
		FirstSeq: f.FirstSeq, LastSeq: f.LastSeq, Records: f.Records, After: f.After, Before: f.Before,
	}
	if f.From != 0 {
		line.Positions = []uint64{f.From, f.To}
	}
	return line
}
