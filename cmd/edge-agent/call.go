package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mcp-edge/edge-agent/internal/command"
)

type callCommand struct {
	commandFlags
	Device      string `arg:"" help:"The device's id."`
	Method      string `arg:"" help:"The method's name, as the device has it."`
	Payload     string `arg:"" optional:"" help:"What the method gets; - takes it from standard input."`
	File        string `placeholder:"FILE" help:"A file with the payload, instead."`
	ContentType string `placeholder:"TYPE" help:"What the payload is, such as application/json."`
	Repeat      bool   `help:"Calling it twice does no harm: send it again when no answer comes."`
}

// Help is what --help says besides.
func (callCommand) Help() string {
	return `The device must speak MCP. Its answer goes to standard output: text as it is, anything else in hexadecimal; --json has every byte.

Example:

  edge-agent call press-7 set_recipe '{"id": 12}' --content-type application/json

Exit code: 0 the device has answered; 1 it was refused, and nothing was sent; 2 it failed, or nobody saw what became of it.`
}

func (c callCommand) Run(ctx context.Context, out io.Writer, errs errorWriter, in io.Reader) error {
	payload, err := c.payload(in)
	if err != nil {
		return inputError{err}
	}
	return c.do(ctx, out, errs, command.Request{
		Device: c.Device, Kind: command.Call, Method: c.Method,
		Payload: payload, ContentType: c.ContentType, Repeat: c.Repeat,
	}, showAnswer)
}

// maxCallPayload is what [commands] max_payload can allow at most, in bytes.
const maxCallPayload = 1 << 20

func (c callCommand) payload(in io.Reader) ([]byte, error) {
	if c.File == "" && c.Payload != "-" {
		return []byte(c.Payload), nil
	}
	if c.File != "" && c.Payload != "" {
		return nil, errors.New("both a payload and --file; give one of them")
	}
	from := "standard input"
	if c.File != "" && c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, fmt.Errorf("the payload can't be read: %w", err)
		}
		defer f.Close()
		in, from = f, c.File
	}
	payload, err := io.ReadAll(io.LimitReader(in, maxCallPayload+1))
	if err != nil {
		return nil, fmt.Errorf("the payload can't be read: %w", err)
	}
	if len(payload) > maxCallPayload {
		return nil, fmt.Errorf("the payload in %s is larger than 1 MiB, and no agent takes that", from)
	}
	return payload, nil
}

func showAnswer(out io.Writer, c *command.Command) error {
	var payload []byte
	if c.Answer == nil && c.Reason != "" {
		return fmt.Errorf("%s: it was done, but %s", target(c), plain(c.Reason))
	}
	if c.Answer != nil {
		payload = c.Answer.Payload
	}
	text := string(payload)
	switch {
	case text == "":
		text = fmt.Sprintf("%s  succeeded in %s, with an empty answer", target(c), took(c))
	case !printable(text):
		text = hex.Dump(payload)
	}
	_, err := fmt.Fprintln(out, strings.TrimSuffix(text, "\n"))
	return err
}

// printable is true for text that does nothing to a terminal but appear on it.
func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return !unicode.IsPrint(r) && r != '\n' && r != '\t'
	})
}
