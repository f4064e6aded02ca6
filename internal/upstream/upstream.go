// Package upstream is the contract of a destination. The folders below hold
// one kind each; the pipeline drives them all the same way.
package upstream

import (
	"context"
	"errors"

	"github.com/mcp-edge/edge-agent/record"
)

// Upstream delivers records to one destination. The pipeline calls Send from
// one goroutine for each route that leads here, so concurrently, and Run once.
type Upstream interface {
	// Run keeps the connection for as long as ctx lives, and returns nil then.
	// A destination that can't be reached is tried again for ever; Run fails
	// only for what can't get better by itself.
	Run(ctx context.Context) error

	// Send returns nil once every record of the batch is safe at the
	// destination: acknowledged by the broker, synced to disk. It waits while
	// the destination is away, until ctx ends. After an error the pipeline
	// sends the whole batch again, so records may repeat; within one device the
	// order of the batch holds. The records, and all they point to, are valid
	// until Send returns.
	Send(ctx context.Context, batch []record.Record) error

	// Status tells how the destination is; it may be called at any time.
	Status() Status
}

// Status is what an operator sees of an upstream.
type Status struct {
	// Connected: the destination can take records as far as is known.
	Connected bool `json:"connected"`
	// Reason is why not, in words; empty when Connected.
	Reason string `json:"reason,omitempty"`
	// Endpoint in use or tried last, without secrets.
	Endpoint string `json:"endpoint"`
}

// ErrRefused marks an error of Send that sending the same records again can't
// mend: the destination understood them and said no.
var ErrRefused = errors.New("refused by the destination")
