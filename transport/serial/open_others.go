//go:build !linux

package serial

import (
	"errors"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

var errLinuxOnly = errors.New("serial lines work on Linux only")

func open(string, Config, *tally) (framed.Stream, <-chan struct{}, error) {
	return nil, nil, transport.Permanent(errLinuxOnly)
}

func (roots) ports() ([]Port, error) { return nil, errLinuxOnly }

func (roots) find(USB) (string, error) { return "", transport.Permanent(errLinuxOnly) }

func (roots) findUsers([]Port) {}

type tally struct{}

func (*tally) counters() Counters { return Counters{} }
