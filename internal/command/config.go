package command

import (
	"errors"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
)

// Config is the [commands] table.
type Config struct {
	// Timeout is how long a command is worth anything unless it says so itself.
	Timeout time.Duration `toml:"timeout" default:"30s" min:"1s" max:"24h"`
	// MaxWaiting is how many commands may wait for one device.
	MaxWaiting int `toml:"max_waiting" default:"64" min:"1" max:"10000"`
	// Max is how many commands are kept, those that have ended included. They may
	// take 16 MiB, or a quarter of the store's max_size if that is less. When there
	// is no room, those that have ended and came without a key are forgotten, reads
	// first, then the oldest. New ones are refused when that does not help, and
	// when one device would take more than half of the room with commands that
	// have a key or have not ended.
	Max int `toml:"max" default:"10000" min:"1" max:"50000"`
	// MaxPayload is the most bytes of a call's payload, and of its answer's.
	MaxPayload int `toml:"max_payload" unit:"bytes" default:"64KiB" min:"1" max:"1048576"`
	// Keep is how long a command that came with a key is remembered after its end.
	// One without is forgotten then too, and earlier when there is no room. Time
	// that the agent can't measure, as when the machine is off and its clock not
	// synchronised, does not count.
	Keep time.Duration `toml:"keep" default:"24h" min:"24h" max:"720h"`
}

// Line takes jobs toward devices: a scheduler.Lane, or an MCP listener.
type Line interface {
	// Ready tells whether the line is open, so that a job would go at its turn, and
	// if not, why, in words. A command for one that is not stays queued: a crash
	// meanwhile leaves no doubt that it was not sent.
	Ready() (ready bool, why string)
	// Submit returns at once. The job's Task is told how it ended; when Submit
	// fails it is not told, and nothing was sent. After scheduler.ErrBusy it is
	// tried again.
	Submit(j scheduler.Job) error
}

// Task does one request. It is good for one command.
type Task interface {
	scheduler.Task
	// Answer is what the device said; valid after End.
	Answer() record.Record
}

// Target is a device that can be commanded.
type Target struct {
	Line Line
	// Prepare checks a request against what the device has, and makes its task.
	// An error says in words for the user why it is refused. It may be called
	// concurrently.
	Prepare func(r Request) (Task, error)
}

// Mailbox keeps values on disk, by key; InStore makes one. Its methods return at
// once and may be called concurrently. What is put later is on disk later than
// what was put before.
type Mailbox interface {
	// Size is how many bytes of keys and values it holds at most.
	Size() int64
	// All reads what is on disk.
	All() ([]store.Letter, error)
	// Put writes at once, PutLater with the next commit or after a moment.
	Put(key string, value []byte) (Commit, error)
	PutLater(key string, value []byte) (Commit, error)
	// Delete is no more urgent than PutLater.
	Delete(key string) (Commit, error)
}

// Commit is done when a value is on disk, or never will be: then Err, which is
// valid from then on, says why.
type Commit interface {
	Done() <-chan struct{}
	Err() error
}

// Errors of a Room, for whoever must tell them apart. They come wrapped, with
// words for the user.
var (
	ErrNoDevice  = errors.New("no such device")
	ErrRefused   = errors.New("refused") // with what is wrong with the request
	ErrKeyTaken  = errors.New("the key stands for another request")
	ErrFull      = errors.New("too many commands")
	ErrNotFound  = errors.New("no such command")
	ErrNotStored = errors.New("the command could not be stored") // the disk is full or fails
)

// Filter of List. Empty fields take everything.
type Filter struct {
	Device string
	State  State
	Limit  int // newest first; 0 means 100
}

// Stats is what an operator sees of a Room.
type Stats struct {
	Waiting    int              `json:"waiting"`     // queued or sending
	Kept       int              `json:"kept"`        // those that have ended included
	Bytes      int64            `json:"bytes"`       // of those kept
	Damaged    int              `json:"damaged"`     // could not be read at start, and are left in the file
	Ended      map[State]uint64 `json:"ended"`       // since start, by final state
	MaxWaiting int              `json:"max_waiting"` // the limit for each device
	Max        int              `json:"max"`         // the limit of Kept
	MaxBytes   int64            `json:"max_bytes"`   // the limit of Bytes
}

// inStore is a store's mailbox, whose commits are of a type of their own.
type inStore struct{ mailbox *store.Mailbox }

// InStore keeps commands in the store's file.
func InStore(m *store.Mailbox) Mailbox { return inStore{m} }

func (s inStore) Size() int64                  { return s.mailbox.Size() }
func (s inStore) All() ([]store.Letter, error) { return s.mailbox.All() }

func (s inStore) Put(key string, value []byte) (Commit, error) {
	return commitOf(s.mailbox.Put(key, value))
}

func (s inStore) PutLater(key string, value []byte) (Commit, error) {
	return commitOf(s.mailbox.PutLater(key, value))
}

func (s inStore) Delete(key string) (Commit, error) { return commitOf(s.mailbox.Delete(key)) }

func commitOf(c *store.Commit, err error) (Commit, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}
