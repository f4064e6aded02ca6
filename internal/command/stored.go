package command

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

const (
	// storedVersion is that of the form below. An entry of another one is left
	// alone: a newer program wrote it.
	storedVersion = 1

	// keyPrefix is before a command's ID in the mailbox.
	keyPrefix = "command/"

	// maxAge bounds what the decoder takes for a time that has passed.
	maxAge = time.Duration(1) << 60 // 36 years
)

// stored is a command in the mailbox, as JSON.
type stored struct {
	Version int `json:"v"`
	Command
	From  Instant       `json:"from"`  // when it was submitted
	Worth time.Duration `json:"worth"` // how long from then it may be sent
	Saved Instant       `json:"saved"` // when this was written
	Age   time.Duration `json:"age"`   // of the mailbox then; see Room.age
}

func (s *stored) encode() ([]byte, error) { return json.Marshal(s) }

// decode reads what encode has made. What is wrong otherwise is damage.
func (s *stored) decode(key string, value []byte) error {
	if err := json.Unmarshal(value, s); err != nil {
		return err
	}
	switch {
	case s.Version != storedVersion:
		return fmt.Errorf("its version is %d, this one knows %d", s.Version, storedVersion)
	case key != keyPrefix+s.ID:
		return errors.New("it stands under another's key")
	case !isID(s.ID):
		return errors.New("its ID can't be")
	case !slices.Contains([]State{Queued, Sending, Succeeded, Failed, Expired, Refused, Unknown}, s.State):
		return fmt.Errorf("there is no state %.20q", s.State)
	case s.Key != "" && record.CheckName(s.Key) != nil, record.CheckName(s.Device) != nil:
		return errors.New("its key or device is no name")
	case s.Attempts < 0 || s.State == Sending && s.Attempts == 0:
		return errors.New("its attempts can't be")
	case s.Worth < 0 || s.Worth > maxTimeout, s.Age < 0 || s.Age > maxAge:
		return errors.New("its times can't be")
	case !s.From.sane() || !s.Saved.sane():
		return errors.New("its times can't be")
	}
	return nil
}

func (i Instant) sane() bool { return i.Up >= 0 && i.Up <= maxAge }

// newID sorts behind last, also when the clock has been set back.
func newID(now time.Time, last string) string {
	ms := max(now.UnixMilli(), 0)
	if before, ok := timeOf(last); ok && ms <= before {
		ms = before + 1
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	return fmt.Sprintf("%012x-%x", ms, random)
}

func isID(id string) bool {
	ms, ok := timeOf(id)
	return ok && ms < 1<<47 && len(id) == 21 && record.CheckName(id) == nil
}

// timeOf reads the milliseconds out of an ID.
func timeOf(id string) (ms int64, ok bool) {
	b, err := hex.DecodeString(id[:min(12, len(id))])
	if err != nil || len(b) != 6 {
		return 0, false
	}
	for _, c := range b {
		ms = ms<<8 | int64(c)
	}
	return ms, true
}

// sameRequest compares what is to be done. Who asked does not matter, nor how much
// time is left: each hop that a request is repeated on leaves less.
func sameRequest(a, b Request) bool {
	a.By, b.By = "", ""
	a.Key, b.Key = "", ""
	a.Timeout, b.Timeout = 0, 0
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && bytes.Equal(x, y)
}
