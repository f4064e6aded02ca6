package agent

import (
	"errors"

	"github.com/mcp-edge/edge-agent/internal/clock"
	"github.com/mcp-edge/edge-agent/store"
)

// clockOffsets keeps what the clock has turned out to be in the queue's mailbox: a
// file less, and it is as safe as the records that it is for.
type clockOffsets struct{ box *store.Mailbox }

var _ clock.Keep = clockOffsets{}

// No command's key looks like it.
const clockKey = "clock/offsets"

// Load implements clock.Keep.
func (k clockOffsets) Load() ([]byte, error) {
	l, _, err := k.box.Get(clockKey)
	if err == nil && l.Damaged {
		err = errors.New("its checksum in the queue's file is wrong")
	}
	return l.Value, err
}

// Save implements clock.Keep.
func (k clockOffsets) Save(value []byte) error {
	_, err := k.box.Put(clockKey, value)
	return err
}
