package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mcp-edge/edge-agent/record"
)

// salvagedSuffix is for a file that is complete and on disk, and about to take the
// place of a damaged one.
const salvagedSuffix = ".salvaged"

// rolledBack is why a file is salvaged that is whole, but lacks its last commits.
type rolledBack struct {
	reason    string
	txid, end uint64 // of the last commit that the file knows
}

func (e *rolledBack) Error() string { return e.reason }

// lookalike is ErrForeign of a file that turns out to hold a queue's records.
type lookalike struct{ cause error }

func (e *lookalike) Error() string { return "so damaged that it is hardly known again" }

func (e *lookalike) Unwrap() error { return e.cause }

// openWhatIsThere opens the file, after what is wrong with it has been dealt with:
// what is readable of a damaged queue goes into a fresh file, which takes its
// place; any other file is moved aside untouched, and a new queue begins.
//
// A power cut at any time leaves the file that was there, or the fresh one, or a
// fresh one that lacks nothing but its name, which finishSalvage gives it.
func (s *Store) openWhatIsThere() error {
	cause := s.openWhole(true)
	var behind *rolledBack
	switch {
	case errors.Is(cause, ErrDamaged), errors.Is(cause, ErrForeign), errors.As(cause, &behind):
		s.reset()
		if errors.Is(cause, ErrForeign) {
			cause = &lookalike{cause}
		}
		if err := s.salvage(cause, behind); err != nil {
			return fmt.Errorf("saving what is readable failed: %w (%s)", err, cause.Error())
		}
	case errors.Is(cause, ErrNewer):
		s.reset()
		if err := s.startAnew(newerKind(cause), cause); err != nil {
			return err
		}
	default:
		return cause
	}
	return s.openWhole(false)
}

// reset forgets what a failed Open has taken up.
func (s *Store) reset() {
	s.ids, s.channels, s.cursors = newIdentities(), newChannels(), make(map[string]*Cursor)
	s.segments, s.live, s.end, s.covered, s.uncovered = nil, 0, 0, 0, 0
	s.witness = witness{}
}

// newerKind names the format in a file's name.
func newerKind(cause error) string {
	var newer *newerError
	if errors.As(cause, &newer) {
		return fmt.Sprintf("format%d", newer.format)
	}
	return "newer"
}

// startAnew moves the file aside and makes an empty queue.
func (s *Store) startAnew(kind string, cause error) error {
	if err := s.setAside(kind, cause); err != nil {
		return err
	}
	if err := s.create("the file that stood in its place is none of this program: " + cause.Error()); err != nil {
		return err
	}
	return s.syncNames()
}

// salvage puts a fresh file in the place of a damaged one.
func (s *Store) salvage(cause error, behind *rolledBack) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lockFile(f, syscall.LOCK_EX, lockTimeout); err != nil {
		return err
	}
	dir := filepath.Dir(s.path)
	var w0 witness
	h, err := w0.hear(dir)
	if err := errors.Join(err, w0.close()); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w, err := readWreck(f, info.Size())
	if err != nil {
		return err
	}
	dropCache(f)
	switch {
	case w.about != nil && w.format > format:
		return s.startAnew(fmt.Sprintf("format%d", w.format), &newerError{w.format})
	case w.about == nil && len(w.sources) == 0 && len(w.segments) == 0 && w.checkpoint == nil:
		if l := (*lookalike)(nil); errors.As(cause, &l) {
			cause = l.cause
		}
		kind := asideForeign
		if h.found || w.size == 0 {
			kind = asideDamaged
		}
		return s.startAnew(kind, cause)
	case behind != nil && !w.adds(behind):
		return nil // then there is nothing to be saved, and openWhole begins a new epoch
	}
	treeEnd := ^uint64(0)
	if behind != nil {
		treeEnd = behind.end
	}
	inv, err := takeInventory(w, &h, treeEnd)
	if err != nil {
		return err
	}
	if behind != nil && w.base.txid <= behind.txid {
		inv.doubtMail()
	}
	return s.replaceDamaged(inv, &h, cause)
}

// adds tells whether the wreck holds more than the file knows.
func (w *wreck) adds(behind *rolledBack) bool {
	if w.base.txid > behind.txid {
		return true
	}
	for _, f := range w.mail {
		if f.others {
			return true // see doubtMail
		}
	}
	return slices.ContainsFunc(w.segments, func(seg foundSegment) bool { return seg.count > 0 && seg.first > behind.end })
}

// doubtMail: commits are gone that may have changed letters. An old command must
// not be sent again because the note of its sending is gone.
func (inv *inventory) doubtMail() {
	for key, f := range inv.w.mail {
		if f.others {
			f.doubted = true
			inv.w.mail[key] = f
		}
	}
	inv.report.Letters, inv.report.Doubted = 0, 0
	inv.countMail()
}

// replaceDamaged writes the fresh file and gives both their names.
func (s *Store) replaceDamaged(inv *inventory, h *hearing, cause error) error {
	next, err := s.salvagedAbout(inv.w, h, cause)
	if err != nil {
		return err
	}
	fresh, done := s.path+freshSuffix, s.path+salvagedSuffix
	if err := s.writeSalvaged(inv, fresh, &next); err != nil {
		_ = os.Remove(fresh)
		return err
	}
	dir := filepath.Dir(s.path)
	aside, err := asideName(dir, asideDamaged, time.Now())
	if err != nil {
		return err
	}
	r := &inv.report
	r.File, r.Why, r.Epoch = aside, cause.Error(), next.epoch.String()
	if next.previous != 0 {
		r.EpochBefore = next.previous.String()
	}
	report := strings.TrimSuffix(aside, ".db") + ".json"
	for _, step := range []func() error{
		func() error { return writeReport(report, r) },
		func() error { return os.Rename(fresh, done) },
		func() error { return s.disk.sync(dir) },
		func() error { return os.Rename(s.path, aside) },
		func() error { return s.disk.sync(dir) },
		func() error { return os.Rename(done, s.path) },
		func() error { return s.disk.sync(dir) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	s.log.Error("the queue's file was damaged: what is readable is taken over, the file is moved aside, and a new epoch begins, in which devices are numbered from 1",
		"file", s.path, "moved_to", aside, "report", report, "why", cause, "records_saved", r.Saved, "records_missing", r.Missing+r.Bad+r.Behind,
		"records_without_a_name", r.Nameless, "epoch", next.epoch, "epoch_before", next.previous)
	s.notice(fmt.Sprintf("the queue's file was damaged (%s): %d records were taken over, %d can't be delivered; %s tells what was found; a new epoch has begun",
		cause, r.Saved, r.Missing+r.Bad+r.Behind+r.Nameless, report))
	return nil
}

// salvagedAbout: commits may be lost, so a new epoch begins.
func (s *Store) salvagedAbout(w *wreck, h *hearing, cause error) (next about, err error) {
	if w.about != nil {
		next = *w.about
	} else if h.ok {
		next.epoch = h.epoch
	}
	next.previous = next.epoch
	if next.epoch, err = drawEpoch(); err != nil {
		return next, err
	}
	if h.ok {
		next.generation = max(next.generation, h.generation)
	}
	next.generation++
	next.since, next.reason, next.sums, next.witnessed = time.Now(), cause.Error(), true, h.found
	return next, nil
}

// finishSalvage ends what a power cut has interrupted.
func (s *Store) finishSalvage() error {
	done := s.path + salvagedSuffix
	if _, err := os.Stat(done); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
		return errors.Join(os.Rename(done, s.path), s.disk.sync(filepath.Dir(s.path)))
	} else if err != nil {
		return err
	}
	return os.Remove(done) // the damaged file is there still: it is salvaged again
}

// writeSalvaged makes the fresh file, and has it on disk.
func (s *Store) writeSalvaged(inv *inventory, path string, next *about) (err error) {
	db, err := openBolt(path, mapSize(s.cfg.MaxSize))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.NoSync = true // the last transaction syncs it all
	if err := db.Update(makeBuckets); err != nil {
		return err
	}
	log := &salvagedLog{db: db, inv: inv, sources: maps.Clone(inv.names)}
	if err := log.write(); err != nil {
		return err
	}
	db.NoSync = false
	err = db.Update(func(tx *bolt.Tx) error {
		return errors.Join(
			next.put(tx),
			log.putNames(tx), inv.putChannels(tx), inv.putCursors(tx), inv.putMail(tx),
			tx.Bucket([]byte(checkpointBucket)).Put([]byte(checkpointKey), inv.encodeNumbers(log.end)),
		)
	})
	if err != nil {
		return err
	}
	return verifyOnDisk(path)
}

// salvagedLog writes the log, and what is missing of it.
type salvagedLog struct {
	db      *bolt.DB
	inv     *inventory
	sources map[uint32]SourceKey
	gaps    map[deviceKey]uint32 // ids of the sources that announce gaps
	end     uint64

	batch []batched
	bytes int
}

type batched struct {
	first uint64
	value []byte
}

func (l *salvagedLog) write() error {
	l.gaps = make(map[deviceKey]uint32)
	for id, key := range l.sources {
		if key.Stream == record.GapStream {
			l.gaps[deviceKey{key.Agent, key.Epoch, key.Device}] = id
		}
	}
	inv := l.inv
	l.end = inv.end
	next := 0
	for i := range inv.pieces {
		p := &inv.pieces[i]
		for ; next < len(inv.holes) && inv.holes[next].from < p.from; next++ {
			if err := l.announce(inv.holes[next].from, inv.lost[inv.holes[next].from]); err != nil {
				return err
			}
		}
		value, err := inv.w.segment(p)
		if err != nil {
			return err
		}
		if err := l.put(p.from, value); err != nil {
			return err
		}
	}
	for ; next < len(inv.holes); next++ {
		if err := l.announce(inv.holes[next].from, inv.lost[inv.holes[next].from]); err != nil {
			return err
		}
	}
	if n := uint64(len(inv.lost[0])); n > 0 {
		if err := l.announce(l.end+1, inv.lost[0]); err != nil {
			return err
		}
		l.end += n
	}
	return l.flush()
}

// announce puts gap records where something is missing.
func (l *salvagedLog) announce(first uint64, list []loss1) error {
	if len(list) == 0 {
		return nil
	}
	g := newGroup(spare{})
	g.header.first = first
	for i := range list {
		d := list[i].device
		e := envelope{source: l.gapSource(l.sources[d.id]), gap: true, time: nanos(list[i].gap.Last), body: appendGap(nil, &list[i].gap)}
		g.segment = appendRecord(g.segment, &e)
		g.header.count++
		if e.time != noTime && (g.header.oldest == noTime || e.time < g.header.oldest) {
			g.header.oldest = e.time
		}
	}
	g.seal()
	return l.put(first, g.segment)
}

func (l *salvagedLog) gapSource(key SourceKey) uint32 {
	dk := deviceKey{key.Agent, key.Epoch, key.Device}
	id, ok := l.gaps[dk]
	if !ok {
		l.inv.lastID++
		id = l.inv.lastID
		key.Stream = record.GapStream
		l.sources[id], l.gaps[dk] = key, id
	}
	return id
}

func (l *salvagedLog) put(first uint64, value []byte) error {
	const chunk = 8 << 20 // bytes a transaction
	l.batch = append(l.batch, batched{first, value})
	if l.bytes += len(value); l.bytes < chunk {
		return nil
	}
	return l.flush()
}

func (l *salvagedLog) flush() error {
	err := l.db.Update(func(tx *bolt.Tx) error {
		tx.Cursor().Bucket().FillPercent = 1
		for _, b := range l.batch {
			if err := putSegment(tx, b.first, b.value); err != nil {
				return err
			}
		}
		return nil
	})
	clear(l.batch)
	l.batch, l.bytes = l.batch[:0], 0
	return err
}

// lostName stands in the place of a source whose name is lost: no cursor takes it.
func lostName(id uint32) SourceKey { return SourceKey{Agent: "?", Epoch: record.Epoch(id)} }

// NameLost tells that damage has cost the names of device and stream: Browse shows
// such records for people to look at, and nothing delivers them.
func (k SourceKey) NameLost() bool { return k.Device == "" }

// putNames leaves no hole between ids.
func (l *salvagedLog) putNames(tx *bolt.Tx) error {
	b := tx.Bucket([]byte(sourceBucket))
	b.FillPercent = 1
	for id := uint32(1); id <= l.inv.lastID; id++ {
		key, ok := l.sources[id]
		if !ok {
			key = lostName(id)
		}
		if err := putSummed(b, sourceBucket, idKey(id), encodeSource(key)); err != nil {
			return err
		}
	}
	return nil
}

func (inv *inventory) putChannels(tx *bolt.Tx) error {
	b := tx.Bucket([]byte(channelBucket))
	for id, f := range inv.w.channels {
		if err := putSummed(b, channelBucket, idKey(id), f.value); err != nil {
			return err
		}
	}
	return nil
}

// putCursors: what is behind them is counted when they are opened.
func (inv *inventory) putCursors(tx *bolt.Tx) error {
	for name, f := range inv.w.cursors {
		acked := f.value[:8]
		form := slices.Concat(acked, acked, make([]byte, savedSize-16))
		gaps := encodeMissing(inv.missing(name))
		err := errors.Join(
			putSummed(tx.Bucket([]byte(cursorBucket)), cursorBucket, []byte(name), form),
			putSummed(tx.Bucket([]byte(gapBucket)), gapBucket, []byte(name), gaps),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// putMail spoils the sums of those letters that can't be trusted: whoever reads
// them learns that they are damaged.
func (inv *inventory) putMail(tx *bolt.Tx) error {
	if len(inv.w.mail) == 0 {
		return nil
	}
	b, err := tx.CreateBucketIfNotExists([]byte(mailboxBucket))
	if err != nil {
		return err
	}
	for key, f := range inv.w.mail {
		value := f.value
		if f.doubted {
			value = binary.LittleEndian.AppendUint32(nil, ^sumMail(key, nil))
		}
		if err := b.Put([]byte(key), value); err != nil {
			return err
		}
	}
	return nil
}

// encodeNumbers is the checkpoint of the fresh file.
func (inv *inventory) encodeNumbers(position uint64) []byte {
	numbers := maps.Clone(inv.numbers)
	for _, d := range inv.devices {
		if d.Agent == "" {
			numbers[d.id] = max(numbers[d.id], d.seen)
		}
	}
	for id := range inv.marks {
		if _, ok := inv.w.channels[id]; !ok {
			delete(inv.marks, id)
		}
	}
	b := binary.LittleEndian.AppendUint64(make([]byte, 4), position)
	for _, table := range []map[uint32]uint64{numbers, inv.marks} {
		b = binary.AppendUvarint(b, uint64(len(table)))
		for id, last := range table {
			b = binary.AppendUvarint(b, uint64(id))
			b = binary.AppendUvarint(b, last)
		}
	}
	binary.LittleEndian.PutUint32(b, checksum(b[4:]))
	return b
}
