package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mcp-edge/edge-agent/internal/command"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// commandFlags are those of write, read and call.
type commandFlags struct {
	agentFlags
	Timeout *time.Duration `placeholder:"30s" help:"How long the command is worth anything: what was not sent by then is not sent at all. Unless given: [commands] timeout of the agent."`
	Key     string         `placeholder:"NAME" help:"Makes the command happen once: whoever gives the same key again, within a day, gets the outcome of the first."`
	JSON    bool           `help:"Print the command and its outcome as JSON, for machines."`
}

// do has the agent carry out a command, waits for its end, and prints it. The
// error says what became of a command that did not succeed.
func (f *commandFlags) do(ctx context.Context, out io.Writer, errs errorWriter, r command.Request, show func(io.Writer, *command.Command) error) error {
	if f.Timeout != nil && *f.Timeout <= 0 {
		return inputError{fmt.Errorf("--timeout=%v leaves no time; write a positive duration, such as 5s", *f.Timeout)}
	}
	agent, err := f.connect()
	if err != nil {
		return err
	}
	r.Key = f.Key
	if f.Timeout != nil {
		r.Timeout = command.Duration(*f.Timeout)
	}
	c, err := agent.submit(ctx, r)
	if err != nil {
		return err
	}
	if c.Known && c.State != command.Refused {
		fmt.Fprintf(errs, "edge-agent: the key %s stands for command %s of %s; nothing more is sent now, and this is what became of it:\n",
			f.Key, c.ID, c.Submitted.Local().Format(time.RFC3339))
	}
	if c, err = agent.wait(ctx, c); err != nil {
		return err
	}
	if f.JSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		err = enc.Encode(c)
	} else if c.State == command.Succeeded {
		err = show(out, &c)
	}
	return errors.Join(outcome(&c), err)
}

// outcome is nil for a command that succeeded, and otherwise says what happened,
// to what, and what to do.
func outcome(c *command.Command) error {
	what, reason := target(c), plain(c.Reason)
	switch c.State {
	case command.Succeeded:
		return nil
	case command.Refused:
		return inputError{fmt.Errorf("%s: refused, nothing was sent: %s", what, reason)}
	case command.Failed:
		return fmt.Errorf("%s: failed: %s", what, reason)
	case command.Expired:
		return fmt.Errorf("%s: expired: %s. Nothing was sent; a longer --timeout gives it more than %s, and /api/v1/links shows how its link is",
			what, reason, c.Deadline.Sub(c.Submitted).Round(time.Millisecond))
	case command.Unknown:
		return fmt.Errorf("%s: sent, but outcome unknown: %s. %s", what, strings.TrimPrefix(reason, scheduler.ErrUnknown.Error()+": "), afterUnknown(c))
	case command.Queued, command.Sending:
	}
	return fmt.Errorf("%s: still %s", what, plain(string(c.State)))
}

func afterUnknown(c *command.Command) string {
	switch {
	case c.Kind == command.Read:
		return "Nothing was changed; read again"
	case c.Kind == command.Write && !c.Broadcast:
		return fmt.Sprintf("It may have been carried out. Read the point back before you write again: edge-agent read %s %s", plain(c.Device), plain(c.Point))
	}
	return "It may have been carried out. Find out before you send it again; --repeat is for what may be done twice"
}

// target is what a command was for.
func target(c *command.Command) string {
	words := []string{c.Device}
	switch c.Kind {
	case command.Write:
		words = append(words, c.Point)
	case command.Read:
		words = append(words, c.Points...)
	case command.Call:
		words = append(words, c.Method)
	}
	return plain(strings.Join(words, " "))
}

// took is how long a command needed, for people.
func took(c *command.Command) string {
	d := c.Ended.Sub(c.Submitted)
	if d < time.Second {
		return fmt.Sprintf("%d ms", max(d.Milliseconds(), 1))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// shown is a value for people.
func shown(v command.Value) string {
	if text, ok := v.Text(); ok && text == "" {
		return `""`
	} else if ok {
		return plain(text)
	}
	return string(v.AppendJSON(nil))
}

// plain is a text that comes from a device, safe for a terminal: quoted if it
// could do there what it is not meant to.
func plain(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	return strconv.Quote(s)
}

// parseValue takes an argument for what it looks like: a bool, a number, or a
// text, which may stand in JSON's quotes. The error is for a number that none can
// hold.
func parseValue(arg string) (v command.Value, err error) {
	err = json.Unmarshal([]byte(arg), &v)
	var number json.Number
	switch {
	case err == nil:
		return v, nil
	case json.Unmarshal([]byte(arg), &number) == nil && !strings.HasPrefix(arg, `"`) && arg != "null":
		return v, fmt.Errorf("%w. If it is meant as a text, write it in quotes: '\"%.40s\"'", err, arg)
	}
	return command.Value{Value: record.String(arg)}, nil
}

// numbersLast moves a negative number behind "--", where it can't be taken for a
// flag. It is always the last of a command's arguments.
func numbersLast(args []string) []string {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if _, err := strconv.ParseFloat(arg, 64); err == nil && strings.HasPrefix(arg, "-") {
			moved := append(append([]string{}, args[:i]...), args[i+1:]...)
			return append(moved, "--", arg)
		}
	}
	return args
}
