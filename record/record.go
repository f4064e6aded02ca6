// Package record is the agent's data model: what a device said, when, and how
// far it can be trusted. It does no I/O and imports nothing of the agent.
//
// A record's identity is (Agent, Epoch, Device, Seq, Part). Seq is given once,
// where the record is first stored, and rises by one for each record of the
// device; it is never given anew further up, so a receiver can tell a repeat
// from a new record and prove that nothing is missing.
//
// Three forms exist: the Go struct here, its protobuf (record.proto, the form
// on the wire and in the queue) and its JSON (one object a record, the form
// that leaves the agent).
package record

import "time"

// Record is one thing a device said at one time.
//
// A Record is a plain value: whoever holds it may change it. Payload may alias
// a buffer of whoever made the record (see Unmarshal); a consumer that keeps
// it must copy it.
type Record struct {
	Agent  string // the agent that stored it first; empty: not stored yet
	Epoch  Epoch  // names that agent's data directory
	Device string // see CheckName
	Stream string // the poll's name, an MCP record's topic, or a text rule's name
	Seq    uint64 // from 1; 0: not stored yet, or a gap record
	Part   uint32 // 0 unless a handler made several records of one

	Time    time.Time // when it was read or said; nanoseconds, UTC
	Clock   Clock     // whether the clock that gave Time was synchronised
	Quality Quality

	// Of a clock that was not synchronised, see Stamp. What corrects Time keeps both.
	Boot         Boot
	Up           time.Duration
	TimeRecorded time.Time // what Time was before; zero: Time is as it was recorded

	Points []Point // readings by name; empty for a raw payload

	Payload     []byte // raw bytes as the device sent them
	ContentType string // of Payload, an Internet media type (RFC 6838)

	Gap *Gap // what is known to be missing; only in the stream GapStream

	// Resent marks one that is not in its place in the order of its device, because it
	// was sent there before or goes out behind newer ones. It is set on the way out,
	// and no part of the stored form.
	Resent bool
}

// GapStream is the stream of records that announce missing ones.
const GapStream = "_gap"

// Point is one named value, or the reason why it could not be read.
type Point struct {
	Name  string
	Value Value  // KindNone when Bad is set
	Unit  string // as configured, UTF-8, may be empty
	Bad   string // why there is no value: a reason of this list or a driver's own
}

// Reasons why a point has no value. A Modbus exception is "exception-2" and so
// on, by its code.
const (
	BadTimeout   = "timeout"    // the device did not answer in time
	BadLinkDown  = "link-down"  // the line or connection was not there
	BadNotFinite = "not-finite" // the device answered NaN or infinity
	BadFormat    = "format"     // the answer could not be understood
)

// Gap says which records are missing. Seq numbers From to To, both inclusive,
// are lost to whoever receives it; From is 0 when the loss happened before
// numbers were given, and then only Count and the times are known.
type Gap struct {
	From, To uint64
	Count    uint64
	Reason   string
	First    time.Time // time of the first missing record, or when the loss began
	Last     time.Time
}

// Reasons of a Gap.
const (
	GapDropOldest = "drop-oldest" // the store was full and the upstream's when_full says so
	GapAge        = "age"         // not delivered within the upstream's max_age
	GapOverload   = "overload"    // lost before it could be stored
	GapDamage     = "damage"      // stored, but can't be read any more
)

// Epoch names a data directory: random, never 0 in a stored record. Its text
// form is 16 lower-case hexadecimal digits.
type Epoch uint64

// Clock says how far a time can be trusted.
type Clock uint8

const (
	ClockUnsynced  Clock = iota // never set, or the kernel says it is not synchronised
	ClockSynced                 // from a synchronised clock
	ClockCorrected              // from one that was not, and was put right when it was
)

// Boot names the time of a machine from one start to the next: random, 0 for
// none. Its text form is that of an Epoch.
type Boot uint64

// Stamp is when something happened. Of a clock that is not synchronised it also
// has the reading of one that nobody sets: so the time can be corrected as soon as
// it is known how far apart the two are.
type Stamp struct {
	Time  time.Time
	Clock Clock
	Boot  Boot          // 0 if Clock says synchronised
	Up    time.Duration // since that boot, suspension included
}

// At sets when the record was read or said.
func (r *Record) At(s Stamp) {
	r.Time, r.Clock, r.Boot, r.Up, r.TimeRecorded = s.Time, s.Clock, s.Boot, s.Up, time.Time{}
}

// Correct gives a record of a clock that was not synchronised its right time, and
// keeps the recorded one. Its Boot and Up stay: with them a receiver can correct
// what it was sent earlier.
func (r *Record) Correct(t time.Time) {
	r.TimeRecorded, r.Time, r.Clock = r.Time, t, ClockCorrected
}

// Quality sums up a record's points.
type Quality uint8

const (
	Good    Quality = iota // every point has a value
	Partial                // some points have one
	Bad                    // none has, or the payload was not understood
)
