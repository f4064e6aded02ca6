package config

import (
	"time"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/auth"
	"github.com/mcp-edge/edge-agent/internal/command"
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/driver/text"
	"github.com/mcp-edge/edge-agent/internal/pattern"
	"github.com/mcp-edge/edge-agent/internal/upstream/file"
	"github.com/mcp-edge/edge-agent/internal/upstream/mqtt"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport/serial"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// File is a whole configuration, checked, with every default filled in.
type File struct {
	// Agent says who this agent is.
	Agent Agent `toml:"agent" required:"true"`
	// Admin is the HTTP interface for health, metrics and status.
	Admin admin.Config `toml:"admin"`
	// Log is what the agent writes to standard error.
	Log Log `toml:"log"`
	// Scheduler is what all links share.
	Scheduler scheduler.SharedConfig `toml:"scheduler"`
	// Commands bounds what is asked of devices.
	Commands command.Config `toml:"commands"`
	// Store is the queue on disk.
	Store store.Config `toml:"store"`
	// Links are the lines and connections that the agent reaches devices through.
	Links []Link `toml:"link"`
	// Devices are what is read, or what may send.
	Devices []Device `toml:"device"`
	// Listens are where devices and agents below connect to, and speak MCP.
	Listens []Listen `toml:"listen"`
	// Routes say which records go where.
	Routes []Route `toml:"route"`
	// Upstreams are the destinations.
	Upstreams []Upstream `toml:"upstream"`

	source  *source // for the place of a secret that can't be read
	secrets []secret
}

// Agent is the [agent] table.
type Agent struct {
	// ID names this agent in every record; no two agents that report to the
	// same place may share one.
	ID string `toml:"id" required:"true" name:"true" example:"\"gw-01\""`
	// DataDir is the folder of the queue and the admin token. It belongs to one
	// running agent, and must be on a disk that keeps what it has synced.
	DataDir string `toml:"data_dir" default:"/var/lib/edge-agent"`
}

// Log is the [log] table.
type Log struct {
	// Level is the least that is logged.
	Level string `toml:"level" default:"info" oneof:"debug,info,warn,error"`
	// Format is "text" for people or "json" for machines.
	Format string `toml:"format" default:"text" oneof:"text,json"`
}

// Link is a [[link]]: one line or connection, which devices may share.
type Link struct {
	// Name of the link, which its devices refer to.
	Name string `toml:"name" required:"true" name:"true" example:"\"rs485-1\""`
	// Transport that carries it.
	Transport string `toml:"transport" required:"true" oneof:"serial,tcp,udp,quic"`
	// Address is the device file of a serial line, best the one under
	// /dev/serial/by-id, which stays when ports are swapped; with the other
	// transports it is HOST:PORT. Required, but for a serial line with usb.
	Address string `toml:"address" example:"\"/dev/ttyUSB0\""`
	// USB names the adapter of a serial line, instead of Address: it is found
	// wherever it is plugged in.
	USB *serial.USB `toml:"usb"`
	// Serial settings of a serial line.
	Serial serial.Config `toml:"serial"`
	// UDP settings of transport "udp".
	UDP udp.Config `toml:"udp"`
	// TLS secures what we dial: TLS 1.3 with tcp and quic, which can't do without,
	// DTLS 1.2 with udp.
	TLS *auth.ClientTLSConfig `toml:"tls"`
	// Auth is what we show to an MCP device that wants to know who we are.
	Auth *auth.DialConfig `toml:"auth"`
	// Accept is for a device that can't be reached, behind a router or on a mobile
	// network: it connects to Address on this machine, and is then polled as if
	// we had dialed it. accept = {} takes whoever calls.
	Accept *Accept `toml:"accept"`
	scheduler.Config
	// Durability is how much it takes for a record to count as accepted: "sync" is on
	// disk, "delayed" on disk with a commit that waits up to the store's commit_delay
	// for company, "memory" in memory only, lost at the next stop. Unless set,
	// polled and text devices are "delayed", and what an MCP device publishes is
	// "sync".
	Durability string `toml:"durability" oneof:"sync,delayed,memory"`
	// Modbus settings that the devices of the link share.
	Modbus modbus.LinkConfig `toml:"modbus"`
	// MCP is what we offer to an MCP device.
	MCP mcp.DialConfig `toml:"mcp"`

	// Driver is what the link's devices speak.
	Driver string
}

// Accept is the accept table of a [[link]].
type Accept struct {
	// Remote is the IP address that the device calls from. Whoever else calls is
	// hung up on. Any unless given.
	Remote string `toml:"remote"`
	// TLS of the callers: TLS 1.3, and DTLS 1.2 with udp.
	TLS *auth.ServerTLSConfig `toml:"tls"`
	// Insecure allows an address beyond loopback without client certificates:
	// whoever reaches the port can pass for the device.
	Insecure bool `toml:"insecure" default:"false"`
}

// Device is a [[device]]: something on a link, or a peer known to a listener.
type Device struct {
	// ID names the device in its records.
	ID string `toml:"id" required:"true" name:"true" example:"\"boiler-1\""`
	// Link is the [[link]] that the agent reaches the device through. A device
	// has this or Listen.
	Link string `toml:"link" example:"\"rs485-1\""`
	// Listen is the [[listen]] that the device connects to by itself.
	Listen string `toml:"listen"`
	// Remote is the IP address that a device connects from which can't say
	// HELLO: whatever comes from there without one is taken for this device.
	Remote string `toml:"remote"`
	// Driver is the protocol that the device speaks. Required with Link; with
	// Listen it is "mcp".
	Driver string `toml:"driver" oneof:"mcp,modbus,text"`
	// Rate is how many transactions a second a device on a link takes at most, its
	// polls and commands together; 0 means any number.
	Rate float64 `toml:"rate" default:"0" min:"0" max:"10000"`
	// Durability is how much it takes for a record to count as accepted: "sync" is on
	// disk, "delayed" on disk with a commit that waits up to the store's commit_delay
	// for company, "memory" in memory only, lost at the next stop. Unless set, as its
	// link or listener has it. Of an MCP device it holds for all that the peer of this
	// name publishes.
	Durability string `toml:"durability" oneof:"sync,delayed,memory"`
	// Modbus settings of driver "modbus".
	Modbus modbus.DeviceConfig `toml:"modbus"`
	// Text settings of driver "text".
	Text text.Config `toml:"text"`
	// Polls are what is read again and again.
	Polls []Poll `toml:"poll"`
}

// Poll is a [[device.poll]]: what is read in one go and becomes one record.
type Poll struct {
	// Name is the stream of the records.
	Name string `toml:"name" required:"true" name:"true" example:"\"temps\""`
	// Every is the period. A round that can't be done in time is skipped and
	// counted, the next ones keep their phase.
	Every time.Duration `toml:"every" required:"true" min:"10ms" max:"24h" example:"\"1s\""`
	// Points that driver "modbus" reads.
	Points []modbus.PointConfig `toml:"points" example:"[{ name = \"temp\", address = \"holding:0\", type = \"int16\" }]"`
	mcp.PollConfig
}

// Listen is a [[listen]]: devices and agents below speak MCP here.
type Listen struct {
	// Name of the listener, which devices refer to.
	Name string `toml:"name" required:"true" name:"true" example:"\"plant\""`
	// Transport that carries it.
	Transport string `toml:"transport" required:"true" oneof:"tcp,udp,quic"`
	// Address to listen on, as HOST:PORT. Beyond loopback it needs tls, and in it
	// client_ca, or auth as well.
	Address string `toml:"address" required:"true" example:"\"127.0.0.1:7700\""`
	// Insecure allows Address beyond loopback without tls or without auth:
	// whoever reaches the port can send records, or read them on their way.
	Insecure bool `toml:"insecure" default:"false"`
	// TLS of the peers: TLS 1.3 with tcp and quic, which can't do without, DTLS
	// 1.2 with udp.
	TLS *auth.ServerTLSConfig `toml:"tls"`
	// Auth demands that peers prove who they are.
	Auth *auth.ListenConfig `toml:"auth"`
	// Durability is how much it takes for a record to count as accepted: "sync" is on
	// disk, "delayed" on disk with a commit that waits up to the store's commit_delay
	// for company, "memory" in memory only, lost at the next stop. Unless set,
	// it is "sync". Peers are acknowledged accordingly.
	Durability string `toml:"durability" oneof:"sync,delayed,memory"`
	// UDP settings of transport "udp".
	UDP udp.Config `toml:"udp"`
	mcp.ListenConfig
}

// Route is a [[route]]: which records go where.
type Route struct {
	// Name of the route.
	Name string `toml:"name" required:"true" name:"true" example:"\"all\""`
	// Match says which records; all of them unless given.
	Match Match `toml:"match"`
	// To names the upstreams that each of these records goes to. No two routes
	// may bring a device's records to one upstream.
	To []string `toml:"to" required:"true" example:"[\"local\"]"`
}

// Match is the match table of a [[route]]. A record must fit both keys.
type Match struct {
	// Device is a pattern or a list of them: * is any text, ? any character,
	// [ab] one of these. Any device unless given.
	Device pattern.List `toml:"device"`
	// Stream is likewise for the stream.
	Stream pattern.List `toml:"stream"`
}

// Upstream is an [[upstream]]: a destination.
type Upstream struct {
	// Name of the upstream, which routes refer to.
	Name string `toml:"name" required:"true" name:"true" example:"\"local\""`
	// Kind of destination.
	Kind string `toml:"kind" required:"true" oneof:"mqtt,file"`
	// WhenFull is what happens to this upstream's records when the store is
	// full; as the store has it, unless set.
	WhenFull string `toml:"when_full" oneof:"block,drop-oldest"`
	// MaxAge is how long a record may wait for this upstream, at least a minute; older
	// ones are let go for it alone, counted, and announced with a _gap record. "0s"
	// is for ever. It counts from when the record was stored, in time that has
	// certainly passed: no jump of the clock makes a record old.
	MaxAge time.Duration `toml:"max_age" default:"0s" min:"0s"`
	// Start is where a route to this upstream begins in the queue: "oldest" is with
	// everything that is still there, "newest" with what comes from then on, and a
	// time such as "2026-11-29T06:00:00Z" with the first record of that time or
	// later. It counts only when the pair of route and upstream is new to the queue;
	// afterwards that goes on where it was.
	Start string `toml:"start" default:"oldest"`
	// Endpoints of kind "mqtt": the broker's address. There is one.
	Endpoints []Endpoint `toml:"endpoints" example:"[{ address = \"mqtt://broker.example:1883\" }]"`
	// MQTT settings of kind "mqtt".
	MQTT mqtt.Config `toml:"mqtt"`
	// File settings of kind "file".
	File file.Config `toml:"file" example:"{ path = \"/var/lib/edge-agent/readings.jsonl\" }"`
}

// Endpoint is one address of an [[upstream]].
type Endpoint struct {
	// Address such as mqtt://broker.example:1883.
	Address string `toml:"address" required:"true" example:"\"mqtt://broker.example:1883\""`
}
