package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mcp-edge/edge-agent/record"
)

// smallQueue makes a queue of a few commits, with a letter, and returns its
// directory.
func smallQueue(t *testing.T) (dir string, epoch record.Epoch) {
	t.Helper()
	r := newRig(t, t.TempDir(), disk{})
	for range 20 {
		r.wait(r.append(3000))
	}
	r.put("key", "value")
	r.stop()
	return r.dir, r.Epoch()
}

func harm(t *testing.T, dir string, by func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, by(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// noMetas makes both meta pages unreadable: nothing leads to anything any more.
func noMetas(b []byte) []byte {
	clear(b[:2*os.Getpagesize()])
	return b
}

func TestAFileThatIsNoneOfOursIsMovedAsideUntouchedAndAQueueStarts(t *testing.T) {
	foreign := func(t *testing.T, dir string) {
		path := filepath.Join(dir, FileName)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket([]byte("users"))
			return errors.Join(err, b.Put([]byte("joe"), []byte("x")))
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	newer := func(t *testing.T, dir string) {
		db, err := bolt.Open(filepath.Join(dir, FileName), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte(aboutBucket))
			a, err := readAbout(tx)
			state := a.encode()
			binary.LittleEndian.PutUint32(state[4:], 99)
			binary.LittleEndian.PutUint32(state, checksum(state[4:]))
			return errors.Join(err, b.Put([]byte(formatKey), binary.LittleEndian.AppendUint32(nil, 99)), b.Put([]byte(stateKey), state))
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		do   func(t *testing.T, dir string)
		kind string
	}{
		"a text": {func(t *testing.T, dir string) {
			harm(t, dir, func([]byte) []byte { return bytes.Repeat([]byte("text"), 10000) })
		}, "damaged"}, // as its witness says that there was a queue
		"a text where no queue was": {func(t *testing.T, dir string) {
			harm(t, dir, func([]byte) []byte { return bytes.Repeat([]byte("text"), 10000) })
			if err := os.Remove(filepath.Join(dir, WitnessName)); err != nil {
				t.Fatal(err)
			}
		}, "foreign"},
		"another program's database": {foreign, "damaged"},
		"nothing":                    {func(t *testing.T, dir string) { harm(t, dir, func([]byte) []byte { return nil }) }, "damaged"},
		"a newer version's":          {newer, "format99"},
		"a newer version's, damaged": {func(t *testing.T, dir string) {
			newer(t, dir)
			harm(t, dir, noMetas)
		}, "format99"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, epoch := smallQueue(t)
			c.do(t, dir)
			before, err := os.ReadFile(filepath.Join(dir, FileName))
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, dir, disk{})
			st := r.Stats()
			if len(st.Aside) != 1 || st.Aside[0].Kind != c.kind || r.Epoch() == epoch || st.Records != 0 || len(st.Notices) == 0 {
				t.Fatalf("%+v", st)
			}
			after, err := os.ReadFile(filepath.Join(dir, st.Aside[0].Name))
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("it was changed: %v", err)
			}
			r.wait(r.append(10))
			r.expect(1, 1)
		})
	}
}

// A step of a salvage that fails stands for a power cut at that place: what is done
// by then is on disk, and the rest is not.
func TestASalvageThatIsCutOffIsDoneAgainAndLosesNothing(t *testing.T) {
	for cut := 1; ; cut++ {
		dir, epoch := smallQueue(t)
		harm(t, dir, noMetas)
		s := &Store{}
		*s = *bare(dir)
		n := 0
		s.disk.sync = func(dir string) error {
			if n++; n == cut {
				return syscall.EIO
			}
			return syncDir(dir)
		}
		err := s.openFile(true)
		if err == nil {
			if cut < 4 {
				t.Errorf("only %d syncs of the directory", n)
			}
			_ = errors.Join(s.db.Close(), s.witness.close())
			return
		}
		r := newRig(t, dir, disk{})
		if r.Epoch() == epoch {
			t.Errorf("cut %d: the epoch is the same", cut)
		}
		r.expect(1, 20)
		if letters, err := r.Mailbox().All(); err != nil || len(letters) != 1 {
			t.Errorf("cut %d: %v, %+v", cut, err, letters)
		}
		r.stop()
		for _, name := range []string{FileName + freshSuffix, FileName + salvagedSuffix} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				t.Errorf("cut %d: %s is left", cut, name)
			}
		}
	}
}

// bare is a Store that has opened nothing.
func bare(dir string) *Store {
	return &Store{
		path: filepath.Join(dir, FileName), cfg: specimenConfig, log: silent(), disk: disk{commit: (*bolt.Tx).Commit, sync: syncDir},
		ids: newIdentities(), channels: newChannels(), cursors: make(map[string]*Cursor), pending: newGroup(spare{}),
	}
}

// ioError is a file that the disk can't read from a place on.
type ioError struct {
	io.ReaderAt
	from int64
}

func (f ioError) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > f.from {
		return 0, &os.PathError{Op: "read", Path: "x", Err: syscall.EIO}
	}
	return f.ReaderAt.ReadAt(b, at)
}

func TestADiskThatCanNotBeReadIsNoDamage(t *testing.T) {
	dir, _ := smallQueue(t)
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{0, 20, 4096, 5000, 20000} {
		if _, err := readWreck(ioError{bytes.NewReader(b), from}, int64(len(b))); !isDiskError(err) || !errors.Is(err, syscall.EIO) {
			t.Errorf("from %d: %v", from, err)
		}
		if _, err := findMeta(ioError{bytes.NewReader(b), from}); from <= 20 && !isDiskError(err) {
			t.Errorf("from %d: %v", from, err)
		}
	}
}

func TestDamagedFilesAreKeptWithinBoundsAndOthersForEver(t *testing.T) {
	dir, _ := smallQueue(t)
	put := func(name string, size int) {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 * maxAside {
		stem := fmt.Sprintf("queue.damaged-20200101T00000%dZ", i)
		put(stem+".db", 1000)
		put(stem+".json", 10)
		put(fmt.Sprintf("queue.foreign-20200101T00000%dZ.db", i), 1000)
	}
	put("queue.damaged-20210101T000000Z.db", 1000) // without a report: nobody has looked into it
	put("queue.other", 10)
	r := newRig(t, dir, disk{})
	var kept []string
	for _, f := range r.Stats().Aside {
		kept = append(kept, f.Name)
	}
	want := []string{"queue.damaged-20210101T000000Z.db"}
	for i := range 2 * maxAside {
		want = append(want, fmt.Sprintf("queue.foreign-20200101T00000%dZ.db", i))
	}
	for i := range maxAside {
		want = append(want, fmt.Sprintf("queue.damaged-20200101T00000%dZ.db", maxAside+i))
	}
	slices.Sort(kept)
	slices.Sort(want)
	if !slices.Equal(kept, want) {
		t.Errorf("kept:\n%s\nnot:\n%s", strings.Join(kept, "\n"), strings.Join(want, "\n"))
	}
	if reports, err := filepath.Glob(filepath.Join(dir, "*.json")); err != nil || len(reports) != 2*maxAside {
		t.Errorf("%v, %v", reports, err)
	}
}

func TestTheReportOfADamagedFileSaysWhichDevicesAndTimesItHeld(t *testing.T) {
	r := newRig(t, t.TempDir(), disk{})
	for i := range 60 {
		source, err := r.Source(SourceKey{Device: fmt.Sprint("device-", i%2), Stream: "s"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.Append(r.Context(), Batch{Entries: []Entry{{Source: source, Time: time.Unix(int64(i), 0), Body: make([]byte, 5000)}}})
		if err != nil {
			t.Fatal(err)
		}
		r.wait(c)
	}
	epoch := r.Epoch()
	segments := slices.Clone(r.segments)
	r.stop()
	harm(t, r.dir, func(b []byte) []byte {
		w, err := readWreck(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		for _, seg := range w.segments { // the two records at 31 and 32 are gone, wherever they stand
			if last := seg.first + uint64(seg.count) - 1; seg.first <= 32 && last >= 31 {
				clear(b[seg.at/4096*4096 : seg.at+seg.size])
			}
		}
		return b
	})
	r.open(disk{})
	list, err := Aside(r.dir)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %+v; the segments were %+v", err, list, segments)
	}
	b, err := os.ReadFile(filepath.Join(r.dir, list[0].Report))
	if err != nil {
		t.Fatal(err)
	}
	var report Report
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	if report.EpochBefore != epoch.String() || len(report.Devices) != 2 || report.Saved+report.Missing != 60 || report.Missing == 0 {
		t.Fatalf("%s", b)
	}
	for _, d := range report.Devices {
		if d.Missing[0].Reason != record.GapDamage || d.Saved+d.MissingCount != 30 || d.First != 1 || d.Last != 30 || d.To.Unix() < 58 {
			t.Errorf("%+v", d)
		}
	}
	announced := uint64(0)
	for !r.cursor.atEnd() {
		items, err := r.cursor.Read(r.Context(), nil, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			if item.Gap != nil {
				announced += item.Gap.Count
			}
		}
	}
	if announced != report.Missing {
		t.Errorf("%d are announced as missing, not %d", announced, report.Missing)
	}
}

// FuzzWreck: nothing in a file makes the search fail, or find what can't be
// written.
func FuzzWreck(f *testing.F) {
	dir := f.TempDir()
	s := bare(dir)
	if err := s.openFile(true); err != nil {
		f.Fatal(err)
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		g := newGroup(spare{})
		g.header.first = 1
		g.segment = appendRecord(g.segment, &envelope{source: 1, seq: 1, time: 5, body: []byte("body")})
		g.header.count++
		g.seal()
		return errors.Join(
			putSegment(tx, 1, g.segment),
			putSummed(tx.Bucket([]byte(sourceBucket)), sourceBucket, idKey(1), encodeSource(SourceKey{Epoch: 1, Device: "d", Stream: "s"})),
			putSummed(tx.Bucket([]byte(cursorBucket)), cursorBucket, []byte("c"), make([]byte, savedSize)),
		)
	})
	if err := errors.Join(err, s.db.Close(), s.witness.close()); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		f.Fatal(err)
	}
	used := bytes.TrimRight(b, "\x00")
	f.Add(used)
	f.Add(noMetas(bytes.Clone(used)))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := readWreck(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		inv, err := takeInventory(w, &hearing{}, ^uint64(0))
		if err != nil {
			t.Fatal(err)
		}
		last := uint64(0)
		for _, p := range inv.pieces {
			if p.from <= last || p.to < p.from {
				t.Fatalf("%+v behind position %d", p, last)
			}
			last = p.to
			if value, err := w.segment(&p); err != nil || len(value) == 0 {
				t.Fatalf("%+v: %d bytes, %v", p, len(value), err)
			}
		}
	})
}
