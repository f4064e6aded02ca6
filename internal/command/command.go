// Package command brings what people and programs above want done to devices:
// write a point, read now, call a method. It keeps each command on disk until its
// end is known, and says truthfully what that end was.
//
// # Promises
//
//   - Submit returns once the command is on disk. It survives kill -9 and a power
//     cut from then on, and so does its end.
//   - What is told of a command is on disk: no crash takes it back. That it is
//     being sent is on disk before the first byte may leave. Only where the disk
//     takes nothing any more, Wait tells an end all the same.
//   - A command is never sent after its deadline: it has expired then. The
//     deadline is time left; a restart in between counts, and after a reboot
//     without a synchronised clock nobody can say how long it was, so the command
//     has expired.
//   - A command whose outcome nobody saw (a crash, or no answer, after it may
//     have been sent) ends as unknown and is not sent again, unless it says that
//     repeating is safe.
//   - A key is answered once: whoever submits the same key again gets the first
//     command, whatever became of it. Keys are remembered for Config.Keep, and at
//     least to the deadline. The same key with another request is refused. A
//     command without a key is remembered as long as there is room, and makes way
//     once it has ended: reads first, then the oldest.
//   - The commands of one device are done one after the other, in the order of
//     Submit. Those of different devices don't wait for each other.
//   - Everything is bounded: see Config. At a limit a command is refused, and no
//     key that was accepted is forgotten. One device takes at most half of the
//     room with what can't make way, so that no client of one locks out another's.
package command

import (
	"fmt"
	"time"
)

// Kind is what a command does.
type Kind string

// The kinds.
const (
	Write Kind = "write" // a point of the device
	Read  Kind = "read"  // points now, beside the polls
	Call  Kind = "call"  // a method, as a raw MCP request
)

// State of a command.
type State string

// A command is Queued, perhaps Sending, and then in one of the others for good.
const (
	Queued    State = "queued"    // on disk, waiting for its turn
	Sending   State = "sending"   // handed to the line: it may be sent at any moment, or has been
	Succeeded State = "succeeded" // the device has confirmed it; a broadcast, which none confirms, has left
	Failed    State = "failed"    // the device said no, or what was read back is not what was written
	Expired   State = "expired"   // its deadline passed before it was sent
	Refused   State = "refused"   // it can't be done: no such point, read-only, out of range …
	Unknown   State = "unknown"   // sent, and nobody saw the outcome
)

// Final tells whether the state is for good.
func (s State) Final() bool { return s != Queued && s != Sending }

// Request is what is asked for.
type Request struct {
	// Key makes the request idempotent: 1 to 64 bytes, a name as
	// record.CheckName has it. Empty: the command's ID serves as key.
	Key    string `json:"key,omitempty"`
	Device string `json:"device"`
	Kind   Kind   `json:"kind"`

	Point string `json:"point,omitempty"` // Write: by its name
	// Value of Write: a bool, number or text. A driver takes it for the point's
	// type and refuses what does not fit.
	Value *Value `json:"value,omitempty"`
	// ReadBack reads the point after writing it: the command fails if it holds
	// something else.
	ReadBack bool `json:"read_back,omitempty"`
	// Broadcast writes to all devices of the link at once (Modbus: unit 0).
	// Nobody answers that: it has succeeded when it was sent.
	Broadcast bool `json:"broadcast,omitempty"`

	Points []string `json:"points,omitempty"` // Read: by name; none: all that the device has

	Method      string `json:"method,omitempty"`       // Call
	Payload     []byte `json:"payload,omitempty"`      // Call; base64 in JSON
	ContentType string `json:"content_type,omitempty"` // of Payload

	// Repeat says that doing it twice does no harm, so that it may be sent again
	// when its outcome was not seen. Reads always may.
	Repeat bool `json:"repeat,omitempty"`
	// Timeout is how long the request is worth anything, from Submit on; 0 means
	// Config.Timeout.
	Timeout Duration `json:"timeout,omitempty"`

	// By says who asked, for the history.
	By string `json:"by,omitempty"`
}

// Command is a request and what has become of it.
type Command struct {
	ID string `json:"id"` // unique in the agent; sorts by the time of Submit
	Request
	State     State     `json:"state"`
	Reason    string    `json:"reason,omitempty"` // of State, in words
	Submitted time.Time `json:"submitted"`
	Deadline  time.Time `json:"deadline"` // by the wall clock, as far as that is known
	Sent      time.Time `json:"sent,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Attempts  int       `json:"attempts,omitempty"` // how often it was given to its line, and not back unsent
	Answer    *Answer   `json:"answer,omitempty"`

	// Known, set by Submit only, says that the key was known: this is the command
	// that was made of it before.
	Known bool `json:"known,omitempty"`
}

// Answer is what the device said: values of points, or the answer to a call.
type Answer struct {
	Values      map[string]Value  `json:"values,omitempty"`
	Bad         map[string]string `json:"bad,omitempty"` // points without a value, and why
	Payload     []byte            `json:"payload,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
}

// Duration is a time.Duration written as in the configuration: "30s". As text it
// is positive: who leaves it out means the default, and who writes "0s" does not.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	switch {
	case err != nil:
		return fmt.Errorf(`%q is no duration; write one such as "30s"`, text)
	case parsed <= 0:
		return fmt.Errorf(`%q leaves no time; write a positive duration, such as "5s"`, text)
	}
	*d = Duration(parsed)
	return nil
}
