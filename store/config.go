package store

import "time"

// Config is the [store] table.
type Config struct {
	// MaxSize is the most bytes of records that the queue holds on disk. At the
	// limit WhenFull decides. The file itself may be some MiB larger.
	MaxSize int64 `toml:"max_size" unit:"bytes" default:"1GiB" default32:"256MiB" min:"1MiB"`

	// WhenFull is what happens at MaxSize: "block" stops acknowledging and
	// pauses polls until there is room; "drop-oldest" lets go of the oldest
	// records of the route that lags most, counts them and announces them with
	// a _gap record. An upstream may say otherwise for itself.
	WhenFull string `toml:"when_full" default:"block" oneof:"block,drop-oldest"`

	// CommitDelay is how long a poll's record may wait for others before it is
	// written to disk: fewer writes for flash to wear out, at the price of at
	// most this much polled data in a power cut. MCP peers are never kept
	// waiting: their records are committed, then acknowledged, at once.
	CommitDelay time.Duration `toml:"commit_delay" default:"1s" min:"0s" max:"1m"`
}
