package admin

import (
	"time"

	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
)

// State is everything an operator sees of a running agent; it is the answer of
// /api/v1/status, and the metrics are made of it.
type State struct {
	Agent   string    `json:"agent"`
	Epoch   string    `json:"epoch"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`

	// Stuck lists what has stopped making progress: /healthz fails with it.
	Stuck []string `json:"stuck"`
	// NotReady lists why the agent can't take records now: /readyz fails with
	// it, and with Stuck.
	NotReady []string `json:"not_ready"`
	// Degraded lists what is away while the agent does its job around it: a
	// link that is down, a silent device, an upstream that can't be reached.
	Degraded []string `json:"degraded"`

	Store     store.Stats `json:"store"`
	Links     []Link      `json:"links"`
	Listeners []Listener  `json:"listeners"`
	Routes    []Route     `json:"routes"`
	Upstreams []Upstream  `json:"upstreams"`
}

// Link is a [[link]].
type Link struct {
	scheduler.Status
	// Events counts what its protocol has met, such as "bad_frame" or "late".
	Events map[string]uint64 `json:"events,omitempty"`
}

// Listener is a [[listen]].
type Listener struct {
	Name        string `json:"name"`
	Endpoint    string `json:"endpoint"`
	Connections int    `json:"connections"`
	Refused     uint64 `json:"refused"`
	BadFrames   uint64 `json:"bad_frames"`
	Records     uint64 `json:"records"`
	Holes       uint64 `json:"holes"`
}

// Route is a pump: one route to one upstream.
type Route struct {
	Name     string `json:"name"`
	Upstream string `json:"upstream"`
	pipeline.Status
}

// Upstream is an [[upstream]].
type Upstream struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	upstream.Status
}

// Device is one line of /api/v1/devices.
type Device struct {
	ID         string    `json:"id"`
	Driver     string    `json:"driver,omitempty"` // empty: not in the configuration, seen on a listener
	Link       string    `json:"link,omitempty"`
	Listen     string    `json:"listen,omitempty"`
	State      string    `json:"state"` // "ok", "silent", "link-down", "away" (an MCP peer that has left) or "unheard" since the start
	Reason     string    `json:"reason,omitempty"`
	LastSeq    uint64    `json:"last_seq"` // records stored, ever
	LastRecord time.Time `json:"last_record,omitzero"`
	Timeouts   uint64    `json:"timeouts"`
	Lost       uint64    `json:"lost"` // said while the queue had no room
}
