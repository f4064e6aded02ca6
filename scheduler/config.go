package scheduler

import "time"

// Config is how the devices of a link share it: keys of its [[link]].
type Config struct {
	// Timeout of a transaction: how long a device may take to answer, counted
	// from when the request has left. It is the upper bound: a device that has
	// answered is given what its answers have taken, and some. Unless set, "5s" on
	// links with MCP devices and "1s" on others.
	Timeout time.Duration `toml:"timeout" min:"10ms" max:"5m"`
	// TimeoutMin is the lower bound of what Timeout adapts to. Where timeout is
	// less, that is. While the line's other devices have just waited for a silent
	// one, a device that has answered before is given what it needs and no more.
	TimeoutMin time.Duration `toml:"timeout_min" default:"100ms" min:"1ms" max:"5m"`
	// RetryCount is how many more times a transaction that timed out is tried.
	// A retry waits for its turn, it never holds the line, and it is left out where
	// the line's other devices would suffer from it.
	RetryCount int `toml:"retry_count" default:"3" min:"0" max:"100"`
	// Transactions is how many may be under way at a time. A serial line and
	// Modbus RTU carry one. Unless set, 8 on links with MCP devices and 1 on
	// others: not every Modbus TCP device takes more.
	Transactions int `toml:"transactions" min:"1" max:"256"`
	// ProbeMax is the longest time between two probes of a device that is silent. On
	// a line of which unanswered requests take too much, it may be twice as long.
	ProbeMax time.Duration `toml:"probe_max" default:"1m" min:"1s" max:"1h"`
	// Breaker says when a link whose port fails is left alone for a while.
	Breaker BreakerConfig `toml:"breaker"`

	// Rates is how many transactions a second some devices take at most, by their
	// ids: those of polls and commands together, evenly spread but for what a tenth
	// of a second allows. Others take any number.
	Rates map[string]float64 `toml:"-"`
	// Phase shifts the polls of this lane within their periods, 0 to 1, so that
	// the lanes of an agent don't all begin at the same moment.
	Phase float64 `toml:"-"`
	// Passive is a link that waits to be called: nobody calling is no fault of its
	// port, and waiting takes no part in SharedConfig.MaxOpening.
	Passive bool `toml:"-"`
}

// BreakerConfig is the breaker table of a [[link]]. It counts faults of the
// port only (it can't be opened, it was lost), never a device's.
type BreakerConfig struct {
	// Failures in a row that open the breaker; 0 never does.
	Failures int `toml:"failures" default:"5" min:"0" max:"1000"`
	// Open is how long nothing is tried then.
	Open time.Duration `toml:"open" default:"60s" min:"1s" max:"1h"`
	// Probe is how often the port is tried after that, until it works.
	Probe time.Duration `toml:"probe" default:"10s" min:"1s" max:"1h"`
}

// SharedConfig is the [scheduler] table: what all links share.
type SharedConfig struct {
	// Workers do what is too heavy for a line, such as decoding a large answer, or
	// has to wait, such as a reading for room in the queue.
	Workers int `toml:"workers" default:"8" min:"1" max:"1024"`
	// MaxOpening is how many links may be in the middle of being opened.
	MaxOpening int `toml:"max_opening" default:"256" min:"1" max:"65536"`
}

// What a lane does not leave to the configuration.
const (
	// openTimeout bounds one attempt to open the link.
	openTimeout = 15 * time.Second
	// The wait between attempts is random between 0 and a bound that doubles from
	// reopenMin to reopenMax; after a permanent error it is reopenPermanent.
	reopenMin       = 500 * time.Millisecond
	reopenMax       = 30 * time.Second
	reopenPermanent = 30 * time.Second
	// stopGrace is how long a round under way may take to end when the lane is
	// stopped.
	stopGrace = 5 * time.Second
	// maxJobs is how many commands may wait on a lane.
	maxJobs = 256
	// rateBurst is for how much time's transactions at once a device's rate allows.
	rateBurst = 100 * time.Millisecond
	// commandRun is how many commands may go before a poll that is due.
	commandRun = 4
)

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&c.Timeout, time.Second)
	set(&c.TimeoutMin, 100*time.Millisecond)
	set(&c.ProbeMax, time.Minute)
	set(&c.Breaker.Open, time.Minute)
	set(&c.Breaker.Probe, 10*time.Second)
	c.TimeoutMin = min(c.TimeoutMin, c.Timeout)
	c.Transactions = max(c.Transactions, 1)
	return c
}
