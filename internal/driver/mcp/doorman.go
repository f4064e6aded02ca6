package mcp

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
)

const (
	// refusals is how many refused peers a second are told why; the others are
	// just closed, so that a flood costs an accept and a close each.
	refusals = 16
	// refusalTime is how long telling them may take.
	refusalTime = time.Second
	// cookieSize is what stands in front of each datagram, see docs/protocol.md.
	cookieSize = 8
)

// doorman tells peers that are not taken in why, if that can be done without
// keeping others waiting.
type doorman struct {
	limit   *rate.Limiter
	running sync.WaitGroup
}

func newDoorman() *doorman { return &doorman{limit: rate.NewLimiter(refusals, refusals)} }

// refuse closes conn, at once or soon.
func (d *doorman) refuse(ctx context.Context, conn transport.Conn, reason *mcp.Error) {
	if !d.limit.Allow() {
		_ = conn.Close()
		return
	}
	d.running.Go(func() {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		defer func() { _ = conn.Close() }()
		tell(conn, reason)
	})
}

// tell says ERROR and lets the peer hang up first: a reset could overtake what
// was said.
func tell(conn transport.Conn, reason *mcp.Error) {
	deadline := time.Now().Add(refusalTime)
	if conn.SetWriteDeadline(deadline) != nil || conn.SetReadDeadline(deadline) != nil {
		return
	}
	var msg []byte
	if conn.Info().MaxMessage > 0 {
		heard, err := conn.Read()
		if err != nil || len(heard) < cookieSize {
			return
		}
		msg = append(msg, heard[:cookieSize]...)
	}
	msg, err := mcp.AppendError(msg, mcp.Version2, reason)
	if err != nil || conn.Write(msg) != nil {
		return
	}
	for err == nil || errors.Is(err, transport.ErrFrame) || errors.Is(err, transport.ErrTooLarge) {
		_, err = conn.Read()
	}
}
