//go:build !linux

package serial

import (
	"errors"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

func open(string, Config) (framed.Stream, error) {
	return nil, transport.Permanent(errors.New("serial lines work on Linux only"))
}
