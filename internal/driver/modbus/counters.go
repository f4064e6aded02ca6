package modbus

import "sync/atomic"

// discard is why something received was discarded while the time-out went on.
type discard uint8

const (
	wrongUnit discard = iota
	wrongFunction
	wrongLength
	wrongEcho
	wrongTransaction
	badFrame
	short
	late
	discards // how many there are
)

func (d discard) Error() string {
	return [...]string{
		"wrong unit", "wrong function", "wrong length", "the echo of another write", "wrong transaction",
		"bad CRC or noise", "a reply that stopped midway", "a late reply",
	}[d]
}

// Counters are what a link has seen since it was made.
type Counters struct {
	Requests   uint64 `json:"requests"`
	Replies    uint64 `json:"replies"`    // good ones, exceptions included
	Exceptions uint64 `json:"exceptions"` // of the replies
	Timeouts   uint64 `json:"timeouts"`   // requests without a reply in time

	// What was received and discarded.
	WrongUnit        uint64 `json:"wrong_unit"`
	WrongFunction    uint64 `json:"wrong_function"`
	WrongLength      uint64 `json:"wrong_length"`
	WrongEcho        uint64 `json:"wrong_echo"`        // tells of another write than the one asked
	WrongTransaction uint64 `json:"wrong_transaction"` // Modbus TCP: late, or never asked for
	BadFrame         uint64 `json:"bad_frame"`         // a bad CRC, or noise
	Short            uint64 `json:"short"`             // stopped midway
	Late             uint64 `json:"late"`              // came when nothing was asked, or may be meant for what was asked before
}

// counters is Counters while they are counted; anyone may read them.
type counters struct {
	requests, replies, exceptions, timeouts atomic.Uint64
	discarded                               [discards]atomic.Uint64
}

// Counters may be called at any time.
func (l *Link) Counters() Counters {
	c := &l.counted
	of := func(d discard) uint64 { return c.discarded[d].Load() }
	return Counters{
		Requests: c.requests.Load(), Replies: c.replies.Load(), Exceptions: c.exceptions.Load(), Timeouts: c.timeouts.Load(),
		WrongUnit: of(wrongUnit), WrongFunction: of(wrongFunction), WrongLength: of(wrongLength), WrongEcho: of(wrongEcho),
		WrongTransaction: of(wrongTransaction), BadFrame: of(badFrame), Short: of(short), Late: of(late),
	}
}

// discarded counts d; asked is the unit whose reply is, or will be, waited for.
func (l *Link) discarded(d discard, asked byte) {
	l.counted.discarded[d].Add(1)
	l.log.Debug("modbus: received something that is no reply", "endpoint", l.dialer.Endpoint(), "asked", asked, "reason", d)
}
