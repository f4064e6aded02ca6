package main

import (
	"context"
	"fmt"
	"io"

	"github.com/mcp-edge/edge-agent/internal/command"
)

type writeCommand struct {
	commandFlags
	Device    string `arg:"" help:"The device's id."`
	Point     string `arg:"" help:"The point's name; it needs access = \"rw\" in the configuration."`
	Value     string `arg:"" help:"true, false, a number, or else a text. A text that looks like one of the others goes in double quotes: '\"12\"'."`
	ReadBack  bool   `help:"Read the point afterwards; it is a failure if it holds something else."`
	Broadcast bool   `help:"Write to all devices of the link at once (Modbus unit 0). None of them answers that."`
	Repeat    bool   `help:"Writing it twice does no harm: send it again when no answer comes."`
}

// Help is what --help says besides.
func (writeCommand) Help() string {
	return `The running agent writes it, ahead of its polls, and never after its time.

Example:

  edge-agent write boiler-1 setpoint 21.5 --read-back

Exit code: 0 it was written; 1 it was refused, and nothing was sent; 2 it failed, or nobody saw what became of it.`
}

func (c writeCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	value, err := parseValue(c.Value)
	if err != nil {
		return inputError{err}
	}
	return c.do(ctx, out, errs, command.Request{
		Device: c.Device, Kind: command.Write, Point: c.Point, Value: &value,
		ReadBack: c.ReadBack, Broadcast: c.Broadcast, Repeat: c.Repeat,
	}, showWritten)
}

func showWritten(out io.Writer, c *command.Command) error {
	value := ""
	if c.Value != nil {
		value = " = " + shown(*c.Value)
	}
	how := "succeeded in " + took(c)
	switch {
	case c.Broadcast:
		how = "sent to all devices of the link, which don't answer that"
	case c.ReadBack && c.Answer != nil:
		v, ok := c.Answer.Values[c.Point]
		switch {
		case ok && c.Value != nil && shown(v) != shown(*c.Value): // the device can't hold it exactly
			how += ", written as " + shown(v) + ", which was read back"
		case ok:
			how += ", read back " + shown(v)
		}
	}
	_, err := fmt.Fprintf(out, "%s%s  %s\n", target(c), value, how)
	return err
}
