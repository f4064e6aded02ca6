package demo

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pty"
	"github.com/mcp-edge/edge-agent/internal/sim/instrument"
)

// scale is an instrument on a serial line of its own, which sends a line with a
// number and a weight whether anybody asks or not.
type scale struct {
	name   string
	ledger *ledger
	master *os.File
	slave  *os.File // held open, so that the agent may come and go
	path   string
}

func newScale(name string, l *ledger) (*scale, error) {
	master, path, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("demo: %w", err)
	}
	return &scale{name: name, ledger: l, master: master, slave: slave, path: path}, nil
}

func (s *scale) run(ctx context.Context, every time.Duration) {
	line := instrument.New(s.master, instrument.Config{
		Says: instrument.Scale, Every: every,
		OnSent: func(n uint64) { s.ledger.sent(s.name, n) },
	})
	_ = line.Run(ctx) // what it could not say does not count
}

func (s *scale) close() {
	s.master.Close()
	s.slave.Close()
}
