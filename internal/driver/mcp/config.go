package mcp

import "time"

// ListenConfig is a [[listen]] table: devices and agents below speak MCP here.
type ListenConfig struct {
	// HeartbeatInterval that we offer; the shorter of both sides' is used.
	HeartbeatInterval time.Duration `toml:"heartbeat_interval" default:"30s" min:"1s" max:"10m"`
	// HelloTimeout is how long a peer may take to say HELLO.
	HelloTimeout time.Duration `toml:"hello_timeout" default:"10s" min:"1s" max:"5m"`
	// MaxConnections in all; a further one is refused with ERROR.
	MaxConnections int `toml:"max_connections" default:"10000" min:"1" max:"1000000"`
	// MaxPayload of one frame in bytes.
	MaxPayload int `toml:"max_payload" unit:"bytes" default:"1MiB" min:"1024" max:"16777216"`
	// Window is how many records a peer may have sent and not yet seen
	// acknowledged.
	Window int `toml:"window" default:"1024" min:"1" max:"65536"`
	// WindowBytes bounds the same in bytes.
	WindowBytes int `toml:"window_bytes" unit:"bytes" default:"4MiB" min:"1024" max:"268435456"`
}

// PollConfig is a [[device.poll]] of an MCP device on a [[link]]: a REQUEST
// whose answer becomes a record.
type PollConfig struct {
	// Method that the device is asked for; the poll's name unless set.
	Method string `toml:"method"`
}
