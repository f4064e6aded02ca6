package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/mcp-edge/edge-agent/internal/command"
)

type readCommand struct {
	commandFlags
	Device string   `arg:"" help:"The device's id."`
	Points []string `arg:"" optional:"" name:"point" help:"Names of points; none: all that the device has."`
}

// Help is what --help says besides.
func (readCommand) Help() string {
	return `The running agent reads them now, beside its polls.

Example:

  edge-agent read boiler-1 supply_temp setpoint

Exit code: 0 the device has answered; 1 it was refused, and nothing was sent; 2 no answer came, or the agent could not keep it.`
}

func (c readCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	return c.do(ctx, out, errs, command.Request{Device: c.Device, Kind: command.Read, Points: c.Points}, showRead)
}

// showRead prints a line a point: those asked for in their order, or all by name.
func showRead(out io.Writer, c *command.Command) error {
	answer := c.Answer
	if answer == nil && c.Reason != "" {
		return fmt.Errorf("%s: read, but %s", target(c), plain(c.Reason))
	}
	if answer == nil {
		answer = new(command.Answer)
	}
	points := c.Points
	if len(points) == 0 {
		points = append(slices.Collect(maps.Keys(answer.Values)), slices.Collect(maps.Keys(answer.Bad))...)
		slices.Sort(points)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, name := range points {
		if v, ok := answer.Values[name]; ok {
			fmt.Fprintf(w, "%s\t%s\n", plain(name), shown(v))
		} else if why, bad := answer.Bad[name]; bad {
			fmt.Fprintf(w, "%s\t-\tbad: %s\n", plain(name), plain(why))
		} else {
			fmt.Fprintf(w, "%s\t-\tnot in the answer\n", plain(name))
		}
	}
	if len(points) == 0 {
		fmt.Fprintf(w, "%s has answered in %s, with no point\n", target(c), took(c))
	}
	return w.Flush()
}
