package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/mcp-edge/edge-agent/internal/probe"
)

// probeScreen shows how a scan goes on: one line repainted on a terminal,
// otherwise a plain line for each stretch of units.
type probeScreen struct {
	out      io.Writer
	terminal bool
	painted  bool // the line stands on the terminal
	found    int
}

var _ probe.Watcher = (*probeScreen)(nil)

func newProbeScreen(errs errorWriter) *probeScreen {
	file, ok := errs.Writer.(*os.File)
	return &probeScreen{out: errs, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

// Asking implements probe.Watcher.
func (s *probeScreen) Asking(p probe.Progress) {
	left := p.Left.Round(time.Second)
	if s.terminal {
		s.painted = true
		fmt.Fprintf(s.out, "\r\x1b[2K%v  unit %d (%d of %d)  %d found  at most %v left", p.Setting, p.Unit, p.Place+1, p.Of, s.found, left)
	} else if p.Place == 0 {
		fmt.Fprintf(s.out, "%v: asking %d units, at most %v left\n", p.Setting, p.Of, left)
	}
}

// Found implements probe.Watcher.
func (s *probeScreen) Found(at probe.Setting, u probe.Unit) {
	s.end()
	s.found++
	fmt.Fprintf(s.out, "%v: unit %d answers\n", at, u.Number)
}

// end takes the line from the terminal.
func (s *probeScreen) end() {
	if s.painted {
		fmt.Fprint(s.out, "\r\x1b[2K")
		s.painted = false
	}
}
