package store

import (
	"fmt"
	"time"
)

// Config is the [store] table.
type Config struct {
	// MaxSize is the most bytes of records that the queue holds on disk. At the
	// limit WhenFull decides. The file itself may be some MiB larger; it gives the
	// disk back what it has not needed for a minute.
	MaxSize int64 `toml:"max_size" unit:"bytes" default:"1GiB" default32:"256MiB" min:"1MiB"`

	// MaxRecords is the most records that the queue holds; 0 means as many as fit
	// into MaxSize. It is a limit like MaxSize.
	MaxRecords int64 `toml:"max_records" default:"0" min:"0"`

	// WhenFull is what happens at MaxSize: "block" stops acknowledging and
	// pauses polls until there is room; "drop-oldest" lets go of the oldest
	// records of the route that lags most, counts them and announces them with
	// a _gap record. An upstream may say otherwise for itself.
	WhenFull string `toml:"when_full" default:"block" oneof:"block,drop-oldest"`

	// MinFree is what the disk should have free. Below it the queue's file does not
	// grow: when there is no room inside of it either, it is as at MaxSize, but
	// acknowledgements and commands go on. 0 turns it off; it is never more than a
	// quarter of the disk.
	MinFree int64 `toml:"min_free" unit:"bytes" default:"64MiB" min:"0B"`

	// CommitDelay is how long a poll's record may wait for others before it is
	// written to disk: fewer writes for flash to wear out, at the price of at
	// most this much polled data in a power cut. MCP peers are never kept
	// waiting: their records are committed, then acknowledged, at once.
	CommitDelay time.Duration `toml:"commit_delay" default:"1s" min:"0s" max:"1m"`

	// Keep is for how long delivered records stay, for replay, if there is room: they
	// give way first when there is none, and hold nothing up. It counts from when a
	// record was stored, in time that has certainly passed.
	Keep time.Duration `toml:"keep" default:"0s" min:"0s"`

	// MemorySize bounds the queue in memory, of records whose durability is "memory":
	// beyond it the oldest go. There is one only if a listener, link or device says so.
	MemorySize int64 `toml:"memory_size" unit:"bytes" default:"4MiB" min:"64KiB" max:"1GiB"`

	// Clock tells how old records are. Nil: time counts only while the store is open.
	Clock Clock `toml:"-"`
}

// leastRecords is the smallest MaxRecords that a configuration may have: below it, a
// batch of a peer could be too large.
const leastRecords = 10_000

// Validate reports what the tags can't say.
func (c *Config) Validate(report func(key, problem string)) {
	if c.MaxRecords > 0 && c.MaxRecords < leastRecords {
		report("max_records", fmt.Sprintf("is less than %d; write 0 for any number, or more", leastRecords))
	}
}
