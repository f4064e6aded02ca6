package demo

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pty"
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
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		if _, err := fmt.Fprintf(s.master, "W %d %.1f kg\r\n", n, 12+float64(n%7)/10); err != nil {
			return
		}
		s.ledger.sent(s.name, n)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *scale) close() {
	s.master.Close()
	s.slave.Close()
}
