package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mcp-edge/edge-agent/record"
)

// WitnessName is the file beside the queue's that remembers its last commit.
const WitnessName = "queue.witness"

// A witness stands beside the queue's file and knows its last commit. When the
// file is older than its witness says, commits are gone that were acknowledged:
// one flipped bit in bbolt's newest meta page is enough, and the file opens without
// a fault. The numbers of those records would be given a second time, so the
// numbers start anew instead, in a new epoch.
//
// It is written in place after each commit and never synced. So it may lag behind
// the file after a power cut, by what the kernel had not written back (half a
// minute or so), and is never ahead of an honest disk: a lagging witness can miss
// that just those commits were lost, and raises no false alarm. It is synced when it is
// made and when an epoch begins.
//
// It also knows which file it is itself, by its inode and time of birth: a copy of
// the directory that was put back says by that what it is. What it can't tell: that the
// whole disk or virtual machine was put back, or a copy written over the files in
// place, or that a copy is in use elsewhere meanwhile.
//
// Two slots of 64 bytes, at 0 and 512, are written in turn, so that one torn by a
// power cut leaves the other. Little-endian:
//
//	CRC-32C of the rest u32, version u32, count u64, epoch u64, generation u64,
//	transaction u64, position of the last record u64, inode u64, birth u64
type witness struct {
	f    *os.File // nil: there is none, and none can be made
	slot testimony
	buf  [slotSize]byte
	err  error // of the last attempt to write it
}

const (
	slotSize       = 64
	slotGap        = 512
	witnessVersion = 1
)

// testimony is one slot.
type testimony struct {
	count      uint64 // of testimonies: the higher one counts
	epoch      record.Epoch
	generation uint64
	txid       uint64
	end        uint64
	self       fileID
}

// fileID tells a file from a copy of it. Zero values are not known.
type fileID struct {
	inode uint64
	birth int64 // nanoseconds since 1970
}

// differs tells whether they can't be of one file. Times of birth count where
// there are any: a copy may get the inode of a file that was deleted.
func (id fileID) differs(other fileID) bool {
	if id.birth != 0 && other.birth != 0 {
		return id.birth != other.birth
	}
	return id.inode != 0 && other.inode != 0 && id.inode != other.inode
}

func (t *testimony) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[4:], witnessVersion)
	for i, v := range [...]uint64{t.count, uint64(t.epoch), t.generation, t.txid, t.end, t.self.inode, uint64(t.self.birth)} {
		le.PutUint64(b[8+8*i:], v)
	}
	le.PutUint32(b, checksum(b[4:slotSize]))
}

func parseTestimony(b []byte) (t testimony, ok bool) {
	le := binary.LittleEndian
	if len(b) < slotSize || le.Uint32(b) != checksum(b[4:slotSize]) || le.Uint32(b[4:]) != witnessVersion {
		return t, false
	}
	return testimony{
		count: le.Uint64(b[8:]), epoch: record.Epoch(le.Uint64(b[16:])), generation: le.Uint64(b[24:]),
		txid: le.Uint64(b[32:]), end: le.Uint64(b[40:]), self: fileID{le.Uint64(b[48:]), int64(le.Uint64(b[56:]))},
	}, true
}

// hearing is what a start finds of the witness.
type hearing struct {
	found bool // the file is there
	ok    bool // and can be read
	testimony
	now fileID // which file it is in truth
}

// hear opens the witness and reads it. Only an error of the disk is an error.
func (w *witness) hear(dir string) (h hearing, err error) {
	path := filepath.Join(dir, WitnessName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return h, nil
	case errors.Is(err, fs.ErrPermission):
		return hearing{found: true}, nil
	case err != nil:
		return h, err
	}
	h.found = true
	var b [slotGap + slotSize]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return h, err
	}
	for at := 0; at < len(b); at += slotGap {
		if t, ok := parseTestimony(b[at:max(at, n)]); ok && (!h.ok || t.count > h.count) {
			h.testimony, h.ok = t, true
		}
	}
	h.now = identify(f)
	w.f, w.slot = f, h.testimony
	return h, nil
}

// contradicts says why the file can't be the one that the witness knows, or not
// as new; empty: it is. lost is how many records are gone, as far as is known.
func (h *hearing) contradicts(a *about, txid, end uint64) (reason string, lost uint64) {
	switch {
	case !h.found && a.witnessed:
		return "its witness " + WitnessName + " is missing, so the directory is a copy or was put back from one", 0
	case !h.found, !h.ok && !a.witnessed:
		return "", 0 // or a disk that failed kept it from being made or removed
	case !h.ok:
		return "its witness " + WitnessName + " can't be read, so nobody knows whether it is up to date", 0
	case h.self.differs(h.now):
		return "its directory is a copy, or was put back from one", 0
	case h.epoch == a.previous && h.epoch != 0:
		return "", 0 // a power cut, right after the epoch had begun
	case h.epoch != a.epoch:
		return "its witness " + WitnessName + " belongs to another queue", 0
	case h.generation > a.generation:
		return "an older file stands in its place", lag(end, h.end)
	case h.generation == a.generation && h.txid > txid:
		return fmt.Sprintf("its last commits are gone (%d of them): the file is damaged, or an older one stands in its place", h.txid-txid), lag(end, h.end)
	}
	return "", 0
}

// behind tells whether the file lacks commits that it had itself: it is not another
// one.
func (h *hearing) behind(a *about, txid uint64) bool {
	return h.ok && !h.self.differs(h.now) && h.epoch == a.epoch && h.generation == a.generation && h.txid > txid
}

func lag(end, witnessed uint64) uint64 {
	if witnessed > end {
		return witnessed - end
	}
	return 0
}

// make makes the file, if it is not open, and writes t to disk.
func (w *witness) make(dir string, t testimony, syncDir func(string) error) error {
	if w.f == nil {
		path := filepath.Join(dir, WitnessName)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
		if err != nil {
			return err
		}
		w.f, w.slot = f, testimony{}
		if _, err := f.WriteAt(make([]byte, slotGap+slotSize), 0); err != nil {
			return w.discard(err)
		}
	}
	t.self = identify(w.f)
	for range 2 { // in both slots
		w.write(&t)
	}
	if err := cmp.Or(w.err, w.f.Sync()); err != nil {
		return w.discard(err)
	}
	if err := syncDir(dir); err != nil {
		return w.discard(err)
	}
	return nil
}

// discard goes on without the file.
func (w *witness) discard(err error) error {
	name := w.f.Name()
	w.f.Close()
	_ = os.Remove(name)
	w.f = nil
	return err
}

// write notes a commit, without allocating or waiting for the disk.
func (w *witness) write(t *testimony) {
	if w.f == nil {
		return
	}
	self, count := w.slot.self, w.slot.count
	if t.self != (fileID{}) {
		self = t.self
	}
	w.slot = *t
	w.slot.self, w.slot.count = self, count+1
	w.slot.put(w.buf[:])
	_, w.err = w.f.WriteAt(w.buf[:], int64(w.slot.count%2)*slotGap)
}

func (w *witness) close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}

// testify lets the witness know the commit that is on disk now. A witness that
// can't be written lags: it may miss a loss, and says nothing wrong.
func (s *Store) testify(txid, end uint64) {
	before := s.witness.err
	s.witness.write(&testimony{epoch: s.about.epoch, generation: s.about.generation, txid: txid, end: end})
	if s.witness.err != nil && before == nil {
		s.log.Warn("the witness of the queue can't be written: a rolled-back queue may not be noticed at the next start", "file", s.path, "error", s.witness.err)
	}
}
