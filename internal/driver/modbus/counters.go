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

// UnitErrors are what went wrong while one unit was asked.
type UnitErrors struct {
	Timeouts  uint64 `json:"timeouts"`
	BadFrames uint64 `json:"bad_frames"` // bad CRCs, noise, and replies that stopped midway
	Foreign   uint64 `json:"foreign"`    // replies of other units, or to something else
	Late      uint64 `json:"late"`       // with Modbus TCP also what was never asked for
}

// Errors are those of each unit that something went wrong with, since the link
// was made. It may be called at any time.
func (l *Link) Errors() map[int]UnitErrors {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make(map[int]UnitErrors, len(l.units))
	for unit, e := range l.units {
		list[int(unit)] = *e
	}
	return list
}

// wrong changes what is counted of a unit.
func (l *Link) wrong(unit byte, count func(e *UnitErrors)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.units == nil {
		l.units = make(map[byte]*UnitErrors)
	}
	if l.units[unit] == nil {
		l.units[unit] = new(UnitErrors)
	}
	count(l.units[unit])
}

func (l *Link) timedOut(unit byte) {
	l.counted.timeouts.Add(1)
	l.wrong(unit, func(e *UnitErrors) { e.Timeouts++ })
}

// discarded counts d; asked is the unit whose reply is, or will be, waited for.
func (l *Link) discarded(d discard, asked byte) {
	l.counted.discarded[d].Add(1)
	l.wrong(asked, func(e *UnitErrors) {
		switch d {
		case badFrame, short:
			e.BadFrames++
		case late, wrongTransaction:
			e.Late++
		default:
			e.Foreign++
		}
	})
	l.log.Debug("modbus: received something that is no reply", "endpoint", l.dialer.Endpoint(), "asked", asked, "reason", d)
}
