package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/mcp-edge/edge-agent/internal/demo"
)

type demoCommand struct {
	For    time.Duration `default:"30s" help:"How long the simulated devices send."`
	Report string        `default:"text" enum:"text,json" help:"text: a live screen and a last line. json: only the figures, as one JSON line."`
}

// errLost makes the demo exit with 1: something was lost or out of order.
var errLost = fmt.Errorf("%w: the demo lost records or their order", errSilent)

func (c demoCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	if c.For < demo.MinLength {
		return inputError{fmt.Errorf("--for=%v is too short for the outage; at least %v", c.For, demo.MinLength)}
	}
	screen := out
	if c.Report == "json" {
		screen = io.Discard
	}
	log := slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: slog.LevelError}))
	report, err := demo.Run(ctx, demo.Config{Length: c.For, Version: versionText(), Out: screen, Log: log})
	if err != nil {
		return err
	}
	if c.Report == "json" {
		err = json.NewEncoder(out).Encode(report)
	} else {
		_, err = fmt.Fprintln(out, report)
	}
	if !report.OK() {
		return errors.Join(err, errLost)
	}
	return err
}
