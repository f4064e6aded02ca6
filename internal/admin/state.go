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

	Store store.Stats `json:"store"`
	// Quarantine holds records that could not be delivered, and Retry tells how far
	// those are that are sent again.
	Quarantine pipeline.QuarantineStats `json:"quarantine"`
	Retry      pipeline.RetryStatus     `json:"retry"`
	// Memory is the queue in memory, if the configuration has the level "memory".
	Memory *store.RingStats `json:"memory,omitempty"`
	// Scheduler is what all links share.
	Scheduler scheduler.SharedStatus `json:"scheduler"`
	Links     []Link                 `json:"links"`
	Listeners []Listener             `json:"listeners"`
	Routes    []Route                `json:"routes"`
	Upstreams []Upstream             `json:"upstreams"`
	// Certificates are those that the agent shows to others.
	Certificates []Certificate `json:"certificates,omitempty"`
}

// Certificate is one that the agent shows to others.
type Certificate struct {
	Of      string    `json:"of"`      // "listener plant"
	Expires time.Time `json:"expires"` // it, or one between it and its CA
	// Problem is why files that have changed since are not in use.
	Problem string `json:"problem,omitempty"`
}

// Link is a [[link]].
type Link struct {
	scheduler.Status
	// Events counts what its protocol and its transport have met, such as
	// "bad_frame", "late" or "parity".
	Events map[string]uint64 `json:"events,omitempty"`
	// Session is that with an MCP device.
	Session *Session `json:"session,omitempty"`
}

// Session is a conversation in MCP.
type Session struct {
	State      string    `json:"state"`              // "CONNECTING", "OPEN", "CLOSING", "CLOSED"
	Reason     string    `json:"reason,omitempty"`   // why the session before has ended
	Since      time.Time `json:"since,omitzero"`     // it has been open, or gone
	Peer       string    `json:"peer,omitempty"`     // what the other side calls itself
	Remote     string    `json:"remote,omitempty"`   // where it is
	Identity   string    `json:"identity,omitempty"` // the names in its certificate
	Reconnects uint64    `json:"reconnects"`         // sessions after the first
}

// Listener is a [[listen]].
type Listener struct {
	Name        string `json:"name"`
	Endpoint    string `json:"endpoint"`
	Connections int    `json:"connections"`
	Handshakes  int    `json:"handshakes"` // of them, whose peer has not said who it is
	Accepted    uint64 `json:"accepted"`   // connections, with those refused
	Reconnects  uint64 `json:"reconnects"` // of peers that had been here
	Replaced    uint64 `json:"replaced"`   // sessions whose sender has connected anew
	BadFrames   uint64 `json:"bad_frames"`
	Records     uint64 `json:"records"`
	Repeats     uint64 `json:"repeats"`   // records that were there already
	SetBacks    uint64 `json:"set_backs"` // channels whose sender published again what it had just been told is safe
	Holes       uint64 `json:"holes"`     // publications that came before those they follow
	Lost        uint64 `json:"lost"`      // best-effort records that never came
	// Refused counts what was refused, by the reason: at a limit, without a
	// proof, out of place.
	Refused map[string]uint64 `json:"refused"`
}

// Peer is one line of /api/v1/peers: an MCP peer of a listener that is here, or
// was since the start.
type Peer struct {
	Listener   string    `json:"listener"`
	Sender     string    `json:"sender"`
	Transport  string    `json:"transport"`
	Remote     string    `json:"remote"`
	Identity   string    `json:"identity,omitempty"` // who it has proven to be
	State      string    `json:"state"`
	Reason     string    `json:"reason,omitempty"` // why it has gone
	Since      time.Time `json:"since"`            // it came, or went
	Reconnects uint64    `json:"reconnects"`
}

// Route is a pump: one route to one upstream.
type Route struct {
	Name     string `json:"name"`
	Upstream string `json:"upstream"`
	pipeline.Status
	// Replay is the last one since the start, if there was one.
	Replay *pipeline.ReplayStatus `json:"replay,omitempty"`
	// Memory is the pump of records that are in memory only, if there are any.
	Memory *pipeline.Status `json:"memory,omitempty"`
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
