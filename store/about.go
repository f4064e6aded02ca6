package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mcp-edge/edge-agent/record"
)

// about is what the file says of itself.
type about struct {
	epoch    record.Epoch
	previous record.Epoch // the one before; 0: none
	since    time.Time    // when the epoch began
	reason   string       // why; empty for a new queue

	// generation rises each time another file takes the place of this one: bbolt
	// counts its transactions anew in each.
	generation uint64
	witnessed  bool // a witness was made for it, and is on disk
	sums       bool // the values that should have sums have them
}

// Its form in the file, little-endian, under stateKey. The format and the epoch
// stand under keys of their own, too, where programs of before look for them.
//
//	CRC-32C of the rest u32, format u32, epoch u64, epoch before u64,
//	generation u64, since u64 (nanoseconds), flags u8, reason
const (
	aboutSize = 41

	flagWitnessed = 0x01
	flagSums      = 0x02
)

func (a *about) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 4, aboutSize+len(a.reason))
	b = le.AppendUint32(b, format)
	b = le.AppendUint64(b, uint64(a.epoch))
	b = le.AppendUint64(b, uint64(a.previous))
	b = le.AppendUint64(b, a.generation)
	b = le.AppendUint64(b, uint64(nanos(a.since)))
	flags := byte(0)
	if a.witnessed {
		flags |= flagWitnessed
	}
	if a.sums {
		flags |= flagSums
	}
	b = append(append(b, flags), a.reason...)
	le.PutUint32(b, checksum(b[4:]))
	return b
}

func decodeAbout(b []byte) (a about, version uint32, ok bool) {
	le := binary.LittleEndian
	if len(b) < aboutSize || le.Uint32(b) != checksum(b[4:]) {
		return a, 0, false
	}
	a = about{
		epoch: record.Epoch(le.Uint64(b[8:])), previous: record.Epoch(le.Uint64(b[16:])), generation: le.Uint64(b[24:]),
		since: fromNanos(int64(le.Uint64(b[32:]))), witnessed: b[40]&flagWitnessed != 0, sums: b[40]&flagSums != 0,
		reason: string(b[aboutSize:]),
	}
	return a, le.Uint32(b[4:]), true
}

// put writes all of it.
func (a *about) put(tx *bolt.Tx) error {
	b := tx.Bucket([]byte(aboutBucket))
	return errors.Join(
		b.Put([]byte(formatKey), binary.LittleEndian.AppendUint32(nil, format)),
		b.Put([]byte(epochKey), binary.LittleEndian.AppendUint64(nil, uint64(a.epoch))),
		b.Put([]byte(stateKey), a.encode()),
	)
}

// newerError is ErrNewer and says which.
type newerError struct{ format uint32 }

func (e *newerError) Error() string {
	return fmt.Sprintf("%v: its format is %d, this one knows %d", ErrNewer, e.format, format)
}

func (e *newerError) Is(target error) bool { return target == ErrNewer }

// readAbout fails with ErrForeign, ErrNewer or ErrDamaged.
func readAbout(tx *bolt.Tx) (a about, err error) {
	b := tx.Bucket([]byte(aboutBucket))
	if b == nil {
		return a, fmt.Errorf("%w: it belongs to another program that uses bbolt", ErrForeign)
	}
	version, epoch, state := b.Get([]byte(formatKey)), b.Get([]byte(epochKey)), b.Get([]byte(stateKey))
	if len(version) != 4 {
		return a, fmt.Errorf("%w: it does not say which format it has", ErrForeign)
	}
	v := binary.LittleEndian.Uint32(version)
	a, sealedVersion, ok := decodeAbout(state)
	switch {
	case v > format && (!ok || sealedVersion > format):
		return a, &newerError{v}
	case len(epoch) != 8 || binary.LittleEndian.Uint64(epoch) == 0:
		return a, fmt.Errorf("%w: its epoch is missing", ErrDamaged)
	case ok && (sealedVersion != v || uint64(a.epoch) != binary.LittleEndian.Uint64(epoch)), state != nil && !ok:
		return a, fmt.Errorf("%w: what it says of itself does not fit together", ErrDamaged)
	case !ok:
		a.epoch = record.Epoch(binary.LittleEndian.Uint64(epoch))
	}
	return a, nil
}

// drawEpoch makes one that no other directory has.
func drawEpoch() (record.Epoch, error) {
	var random [8]byte
	for {
		if _, err := rand.Read(random[:]); err != nil {
			return 0, err
		}
		if e := record.Epoch(binary.LittleEndian.Uint64(random[:])); e != 0 {
			return e, nil
		}
	}
}

// nextGeneration marks a file that is about to take the place of the queue's: call
// it in a transaction of the fresh file, and replaced when it has its name.
func (s *Store) nextGeneration(tx *bolt.Tx) error {
	next := s.about
	next.generation++
	return next.put(tx)
}

// replaced notes that the file of nextGeneration is the queue's now. The writer
// calls it, before the next commit.
func (s *Store) replaced() { s.about.generation++ }
