package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/mcp-edge/edge-agent/internal/agent"
	"github.com/mcp-edge/edge-agent/internal/config"
)

type runCommand struct {
	Config string `short:"c" required:"" placeholder:"FILE" help:"The TOML file."`
}

func (c runCommand) Run(ctx context.Context, errs errorWriter) error {
	file, err := loadConfig(c.Config, errs)
	if err != nil {
		return err
	}
	if problems := file.ResolveSecrets(os.LookupEnv); len(problems) > 0 {
		fmt.Fprint(errs, problems)
		return errSilent
	}
	var level slog.LevelVar
	log := newLogger(errs, file.Log, &level)
	return agent.New(file, agent.Options{Version: versionText(), Log: log, Level: &level}).Run(ctx)
}

// loadConfig reads and checks a file; what is wrong with it goes to out.
func loadConfig(path string, out io.Writer) (*config.File, error) {
	file, problems, err := config.Load(path, os.LookupEnv)
	if err != nil {
		return nil, inputError{fmt.Errorf("the configuration can't be read: %w", err)}
	}
	fmt.Fprint(out, problems)
	if problems.Fatal() {
		return nil, errSilent
	}
	return file, nil
}

func newLogger(out io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	if level.UnmarshalText([]byte(c.Level)) != nil {
		level.Set(slog.LevelInfo)
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, opts))
	}
	return slog.New(slog.NewTextHandler(out, opts))
}
