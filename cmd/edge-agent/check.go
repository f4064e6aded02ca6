package main

import (
	"fmt"
	"io"
)

type checkCommand struct {
	File string `arg:"" help:"The TOML file."`
}

func (c checkCommand) Run(out io.Writer) error {
	file, err := loadConfig(c.File, out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: ok: %s\n", c.File, file.Summary())
	return err
}
