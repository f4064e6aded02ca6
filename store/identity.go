package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mcp-edge/edge-agent/record"
)

// MaxSources is how many sources one store knows: devices times their streams.
// Those of this agent's epochs before come on top.
const MaxSources = 1 << 16

// ErrTooManySources is returned for a source beyond MaxSources.
var ErrTooManySources = errors.New("the queue knows too many devices and streams")

// SourceKey says whose record it is.
type SourceKey struct {
	// Agent that stored the record first, and its Epoch. Empty is this agent: its
	// records are numbered here. New ones take the store's own Epoch, whatever is
	// given; those from before it began keep theirs.
	Agent string
	Epoch record.Epoch

	Device string // see record.CheckName
	Stream string // likewise, or record.GapStream
}

// Source is a SourceKey that the store has looked up. Callers keep it: it spares
// the store a search for each record. It is valid for the life of its Store.
type Source struct {
	key    SourceKey
	device *device
	id     uint32 // in the file; 0 until its first record. Guarded by Store.mu, as the rest
	group  *group // where tally is
	tally  int
}

// Key of the source. Epoch is set for this agent's own, too.
func (s *Source) Key() SourceKey { return s.key }

// device gives out the numbers of its records.
type device struct {
	id     uint32  // that of its first source that had a record
	last   uint64  // number given last; of own devices only
	newest int64   // time of its last record since Open, nanoseconds; of own devices only
	gap    *Source // what announces its gaps
}

type deviceKey struct {
	agent  string
	epoch  record.Epoch
	device string
}

// identities are all the sources and devices that the store has met. Guarded by
// Store.mu.
type identities struct {
	sources map[SourceKey]*Source
	devices map[deviceKey]*device
	byID    []*Source // index is the id; 0 is none
	own     []*device // this agent's, that have had a record, in whatever epoch
	past    int       // sources of this agent's epochs before: they count against no limit
}

func newIdentities() identities {
	return identities{
		sources: make(map[SourceKey]*Source), devices: make(map[deviceKey]*device),
		byID: make([]*Source, 1),
	}
}

// Source looks a source up, once for each stream of a device. It fails for a
// name that record.CheckName refuses, and with ErrTooManySources.
func (s *Store) Source(key SourceKey) (*Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	source, err := s.source(key)
	if err != nil {
		return nil, fmt.Errorf("store: device %q, stream %q: %w", key.Device, key.Stream, err)
	}
	return source, nil
}

func (s *Store) source(key SourceKey) (*Source, error) {
	if key.Agent == "" {
		key.Epoch = s.about.epoch
	}
	if source, ok := s.ids.sources[key]; ok {
		return source, nil
	}
	if err := checkSource(key); err != nil {
		return nil, err
	}
	if len(s.ids.sources)-s.ids.past >= MaxSources && key.Stream != record.GapStream {
		return nil, ErrTooManySources
	}
	return s.ids.add(key), nil
}

func checkSource(key SourceKey) error {
	if err := record.CheckName(key.Device); err != nil {
		return fmt.Errorf("the device's name %w", err)
	}
	if key.Stream != record.GapStream {
		if err := record.CheckName(key.Stream); err != nil {
			return fmt.Errorf("the stream's name %w", err)
		}
	}
	if key.Agent != "" {
		if err := record.CheckName(key.Agent); err != nil {
			return fmt.Errorf("the agent's name %w", err)
		}
	}
	return nil
}

func (ids *identities) add(key SourceKey) *Source {
	dk := deviceKey{key.Agent, key.Epoch, key.Device}
	d := ids.devices[dk]
	if d == nil {
		d = &device{newest: noTime}
		ids.devices[dk] = d
	}
	source := &Source{key: key, device: d}
	if key.Stream == record.GapStream {
		d.gap = source
	}
	ids.sources[key] = source
	return source
}

// number gives a source its id: at its first record, so that ids have no holes
// for sources that never had one.
func (ids *identities) number(source *Source) {
	source.id = uint32(len(ids.byID))
	ids.byID = append(ids.byID, source)
	if source.device.id == 0 {
		source.device.id = source.id
		if source.key.Agent == "" {
			ids.own = append(ids.own, source.device)
		}
	}
}

// gapSource is what announces gaps of the source's device.
func (ids *identities) gapSource(source *Source) *Source {
	if source.device.gap == nil {
		key := source.key
		key.Stream = record.GapStream
		ids.add(key)
	}
	return source.device.gap
}

// Dictionary values in the file: numbers little-endian, then each string with its
// length in a byte before it.

func encodeNames(number uint64, names ...string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, number)
	for _, name := range names {
		b = append(append(b, byte(len(name))), name...)
	}
	return b
}

// decodeNames fills names and reports whether b is whole.
func decodeNames(b []byte, names ...*string) (number uint64, ok bool) {
	if len(b) < 8 {
		return 0, false
	}
	number, b = binary.LittleEndian.Uint64(b), b[8:]
	for _, name := range names {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return 0, false
		}
		*name, b = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	}
	return number, len(b) == 0
}

func encodeSource(key SourceKey) []byte {
	return encodeNames(uint64(key.Epoch), key.Agent, key.Device, key.Stream)
}

func decodeSource(b []byte) (key SourceKey, ok bool) {
	epoch, ok := decodeNames(b, &key.Agent, &key.Device, &key.Stream)
	key.Epoch = record.Epoch(epoch)
	return key, ok
}

func idKey(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }
