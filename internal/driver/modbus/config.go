package modbus

import "time"

// Values of LinkConfig.Framing.
const (
	FramingRTU = "rtu"
	FramingTCP = "tcp"
)

// LinkConfig is the modbus table of a [[link]]: what its devices share.
type LinkConfig struct {
	// Framing is "rtu" (the only one on a serial line, and for gateways that
	// pass RTU frames through TCP) or "tcp" (Modbus TCP, the default on TCP).
	Framing string `toml:"framing" oneof:"rtu,tcp"`
	// LateReplyGuard is how long after a request its answer may still come.
	// After a time-out, a request whose answer could be mistaken for the late one
	// (same unit, function and length) waits until then, but at least as long
	// again as the time-out was, up to this. Other units go on. Unused with Modbus
	// TCP, whose answers carry a transaction number.
	LateReplyGuard time.Duration `toml:"late_reply_guard" default:"1s" min:"0s" max:"1m"`
	// TurnaroundDelay is how long the line rests after a write to all devices at
	// once, which none of them answers (Modbus over Serial Line V1.02, section
	// 2.4.1: 100 to 200 ms).
	TurnaroundDelay time.Duration `toml:"turnaround_delay" default:"100ms" min:"0s" max:"10s"`

	// Transactions is how many requests may be on their way at a time, with
	// Modbus TCP; 0 and 1 mean one. It comes from the link's own table.
	Transactions int `toml:"-"`
}

// On is c with the framing that a link of this transport has when none is
// configured.
func (c LinkConfig) On(transport string) LinkConfig {
	switch {
	case c.Framing != "":
	case transport == "serial":
		c.Framing = FramingRTU
	default:
		c.Framing = FramingTCP
	}
	return c
}

// DeviceConfig is the modbus table of a [[device]].
type DeviceConfig struct {
	// Unit is the slave's address on the line: 1 to 247; 0 and 248 to 255 only
	// with Modbus TCP, where 255 means the device at the IP address itself.
	Unit int `toml:"unit" default:"1" min:"0" max:"255"`
	// MaxRegisters is the most registers read in one request.
	MaxRegisters int `toml:"max_registers" default:"125" min:"1" max:"125"`
	// MaxBits is the most coils or discrete inputs read in one request.
	MaxBits int `toml:"max_bits" default:"2000" min:"1" max:"2000"`
	// MaxGap is how many unwanted registers (or 16 times as many bits) between
	// two points are read along with them to save a request.
	MaxGap int `toml:"max_gap" default:"0" min:"0" max:"124"`
	// Gap is the extra silence that a slow device needs before a request, beyond
	// the 3.5 characters of the standard.
	Gap time.Duration `toml:"gap" default:"0s" min:"0s" max:"10s"`
}

// PointConfig is one entry of points in a [[device.poll]].
type PointConfig struct {
	// Name of the point; unique in its poll.
	Name string `toml:"name" required:"true" name:"true" example:"\"supply_temp\""`
	// Address is TABLE:NUMBER, counted from zero. TABLE is coil, discrete,
	// input or holding.
	Address string `toml:"address" required:"true" example:"\"holding:0\""`
	// Type of the value. Coils and discrete inputs are always bool, and may
	// leave it out. "bits" takes Width bits of one register from Bit up; "bool"
	// of a register is its bit number Bit.
	Type string `toml:"type" oneof:"bool,int16,uint16,int32,uint32,int64,uint64,float32,float64,string,bits"`
	// Order of the bytes in values of several registers: ABCD is big-endian,
	// CDAB has the registers in reverse, BADC the two bytes of each, DCBA both.
	// A string takes ABCD or BADC.
	Order string `toml:"order" default:"ABCD" oneof:"ABCD,CDAB,BADC,DCBA"`
	// Scale multiplies the number read. With Scale or Offset it becomes a
	// float64, exact to 53 bits.
	Scale float64 `toml:"scale" default:"1"`
	// Offset is added after scaling.
	Offset float64 `toml:"offset" default:"0"`
	// Unit of the value after scaling, such as "°C".
	Unit string `toml:"unit"`
	// Bit is the lowest bit taken, 0 is the least significant.
	Bit int `toml:"bit" min:"0" max:"15"`
	// Width is the number of bits taken by type "bits".
	Width int `toml:"width" default:"1" min:"1" max:"16"`
	// Length of a string in bytes; NULs at its end are left out.
	Length int `toml:"length" min:"1" max:"250"`
	// Access is "r", or "rw" where commands may write the point.
	Access string `toml:"access" default:"r" oneof:"r,rw"`
	// Limits are the lowest and highest value that a command may write, after
	// scaling: [low, high]. Without them, all that the type can hold.
	Limits []float64 `toml:"limits" example:"[0, 100]"`
}
