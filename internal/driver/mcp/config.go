package mcp

import (
	"fmt"
	"time"
)

// ListenConfig is a [[listen]] table: devices and agents below speak MCP here.
//
// Who goes beyond a limit is refused with an ERROR that says why; the others
// don't notice, and metrics count it by reason.
type ListenConfig struct {
	// HeartbeatInterval that we offer; the shorter of both sides' is used.
	HeartbeatInterval time.Duration `toml:"heartbeat_interval" default:"30s" min:"1s" max:"10m"`
	// HelloTimeout is how long a peer may take to say HELLO, the handshake of TLS
	// or DTLS included.
	HelloTimeout time.Duration `toml:"hello_timeout" default:"10s" min:"1s" max:"5m"`
	// FrameTimeout is how long a peer may take from the first to the last byte of
	// a frame. The largest one must get through the slowest line in this time.
	FrameTimeout time.Duration `toml:"frame_timeout" default:"10s" min:"1s" max:"10m"`
	// MaxConnections in all.
	MaxConnections int `toml:"max_connections" default:"10000" min:"1" max:"1000000"`
	// MaxConnectionsPerAddress is how many of them one IP address may have; with
	// IPv6 one /64 network, of which a single machine can take any address. Raise
	// it where more devices than that call from behind one router.
	MaxConnectionsPerAddress int `toml:"max_connections_per_address" default:"256" min:"1" max:"1000000"`
	// MaxHandshakes is how many peers may be connected that have not yet said who
	// they are. One address may have a quarter of them.
	MaxHandshakes int `toml:"max_handshakes" default:"256" default32:"64" min:"1" max:"1000000"`
	// MaxPayload of one frame in bytes.
	MaxPayload int `toml:"max_payload" unit:"bytes" default:"1MiB" min:"1024" max:"16777216"`
	// Window is how many records a peer may have sent and not yet seen
	// acknowledged.
	Window int `toml:"window" default:"1024" min:"1" max:"65536"`
	// WindowBytes bounds the same in bytes.
	WindowBytes int `toml:"window_bytes" unit:"bytes" default:"4MiB" min:"1024" max:"268435456"`
	// MaxBuffered is how much may wait to be sent to one peer. Who asks for more
	// and does not read the answers is disconnected.
	MaxBuffered int `toml:"max_buffered" unit:"bytes" default:"4MiB" default32:"1MiB" min:"65536" max:"268435456"`
	// MaxRequests of one peer that may be under way; further ones are answered
	// with "busy".
	MaxRequests int `toml:"max_requests" default:"8" min:"1" max:"1024"`
	// Rate is how many records a second one device may publish for long; 0 means
	// any number. A device that is faster is made to wait, and disconnected if it
	// is ahead by more than 5 s. The default is above what a real device does,
	// and keeps one that has gone mad from taking the disk from the others.
	Rate int `toml:"rate" default:"100000" min:"0" max:"10000000"`
	// RateBurst is how many records a device may publish at once after a pause;
	// make it at least the largest batch that devices send.
	RateBurst int `toml:"rate_burst" default:"200000" min:"1" max:"10000000"`
}

// Validate reports limits that contradict each other.
func (c *ListenConfig) Validate(report func(key, problem string)) {
	validateWindow(c.WindowBytes, c.MaxPayload, report)
}

// validateWindow: a record that a frame can carry must fit the window, or its
// sender could never get rid of it.
func validateWindow(window, payload int, report func(key, problem string)) {
	if window < payload {
		report("window_bytes", fmt.Sprintf("is less than max_payload, so a large record could never be sent: write at least %d, or a smaller max_payload", payload))
	}
}

// DialConfig is the mcp table of a [[link]]: what we offer to the device at its
// other end.
type DialConfig struct {
	// HeartbeatInterval that we offer; the shorter of both sides' is used.
	HeartbeatInterval time.Duration `toml:"heartbeat_interval" default:"30s" min:"1s" max:"10m"`
	// MaxPayload of one frame in bytes; unless set, "4KiB" on a serial line and
	// "1MiB" elsewhere.
	MaxPayload int `toml:"max_payload" unit:"bytes" min:"1024" max:"16777216"`
	// Window is how many records the device may have sent and not yet seen
	// acknowledged.
	Window int `toml:"window" default:"1024" min:"1" max:"65536"`
	// WindowBytes bounds the same in bytes.
	WindowBytes int `toml:"window_bytes" unit:"bytes" default:"4MiB" min:"1024" max:"268435456"`
}

// Validate reports limits that contradict each other.
func (c *DialConfig) Validate(report func(key, problem string)) {
	validateWindow(c.WindowBytes, c.MaxPayload, report)
}

// PollConfig is a [[device.poll]] of an MCP device on a [[link]]: a REQUEST
// whose answer becomes a record.
type PollConfig struct {
	// Method that the device is asked for; the poll's name unless set.
	Method string `toml:"method"`
}
