package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// few stores n records of each of two devices, in a commit each, and stops.
func few(b *bed, n int) {
	b.Helper()
	b.cursor(store.CursorConfig{})
	b.start()
	for i := range n {
		b.add(b.source("a"), fmt.Sprint("a", i))
		b.add(b.source("b"), fmt.Sprint("b", i))
	}
	b.stop()
}

// expectEpoch opens the store and checks whether the epoch is another one than
// before, and whether it says why.
func expectEpoch(t *testing.T, b *bed, before record.Epoch, reason string) {
	t.Helper()
	b.open()
	st := b.Stats()
	switch {
	case reason == "" && (b.Epoch() != before || len(st.Notices) > 0 || st.Epoch.Reason != ""):
		t.Errorf("the epoch was %s and is %s: %+v, %q", before, b.Epoch(), st.Epoch, st.Notices)
	case reason != "" && (b.Epoch() == before || len(st.Notices) == 0 || !strings.Contains(st.Epoch.Reason, reason) || st.Epoch.Previous != before.String()):
		t.Errorf("the epoch was %s and is %s: %+v, %q", before, b.Epoch(), st.Epoch, st.Notices)
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestAnEpochGoesOnAcrossOrdinaryRestarts(t *testing.T) {
	b := newBed(t, store.Config{})
	epoch := b.Epoch()
	few(b, 3)
	for range 3 {
		expectEpoch(t, b, epoch, "")
		b.stop()
	}
	moved := filepath.Join(filepath.Dir(b.dir), "moved")
	if err := os.Rename(b.dir, moved); err != nil {
		t.Fatal(err)
	}
	b.dir = moved
	expectEpoch(t, b, epoch, "")
	b.cursor(store.CursorConfig{})
	b.start()
	b.add(b.source("a"), "x")
	if d := b.Devices(); d[0].Last != 4 {
		t.Errorf("%+v", d)
	}
}

func TestAnOpenThatChangesNothingWritesNothing(t *testing.T) {
	b := newBed(t, store.Config{})
	few(b, 3)
	before := witnessOf(t, b.dir)
	b.open()
	b.stop()
	if after := witnessOf(t, b.dir); after != before {
		t.Errorf("the witness was\n%x, and is\n%x", before, after)
	}
}

func witnessOf(t *testing.T, dir string) string {
	t.Helper()
	w, err := os.ReadFile(filepath.Join(dir, store.WitnessName))
	if err != nil {
		t.Fatal(err)
	}
	return string(w)
}

func TestADirectoryThatIsNotWhatItWasBeginsANewEpoch(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(t *testing.T, b *bed)
		reason string
	}{
		"the file is put back from a copy": {func(t *testing.T, b *bed) {
			old := t.TempDir()
			copyDir(t, b.dir, old)
			b.open()
			few(b, 2)
			move(t, filepath.Join(old, store.FileName), filepath.Join(b.dir, store.FileName))
		}, "last commits are gone"},
		"the directory is put back from a copy": {func(t *testing.T, b *bed) {
			old := t.TempDir()
			copyDir(t, b.dir, old)
			b.open()
			few(b, 2)
			for _, name := range []string{store.FileName, store.WitnessName} {
				move(t, filepath.Join(old, name), filepath.Join(b.dir, name))
			}
		}, "put back"},
		"it is a copy": {func(t *testing.T, b *bed) {
			other := t.TempDir()
			copyDir(t, b.dir, other)
			b.dir = other
		}, "a copy"},
		"the witness is missing": {func(t *testing.T, b *bed) {
			if err := os.Remove(filepath.Join(b.dir, store.WitnessName)); err != nil {
				t.Fatal(err)
			}
		}, "is missing"},
		"the witness is empty": {func(t *testing.T, b *bed) {
			change(t, filepath.Join(b.dir, store.WitnessName), func([]byte) []byte { return nil })
		}, "can't be read"},
		"the witness is another queue's": {func(t *testing.T, b *bed) {
			other := newBed(t, store.Config{})
			few(other, 9)
			change(t, filepath.Join(b.dir, store.WitnessName), func([]byte) []byte { return []byte(witnessOf(t, other.dir)) })
		}, "copy"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, store.Config{})
			epoch := b.Epoch()
			few(b, 3)
			c.do(t, b)
			expectEpoch(t, b, epoch, c.reason)
			next := b.Epoch()
			b.stop()
			b.open()
			if b.Epoch() != next || len(b.Stats().Notices) > 0 || b.Stats().Epoch.Reason == "" {
				t.Errorf("the epoch was %s and is %s: %+v", next, b.Epoch(), b.Stats())
			}
		})
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestANewEpochNumbersFromOneAndWhatIsStoredKeepsItsOwn(t *testing.T) {
	b := newBed(t, store.Config{})
	old := b.Epoch()
	few(b, 3)
	if err := os.Remove(filepath.Join(b.dir, store.WitnessName)); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.cursor(store.CursorConfig{})
	b.start()
	if d := b.Devices(); len(d) != 2 || d[0] != (store.DeviceStats{Device: "a"}) {
		t.Errorf("%+v", d)
	}
	b.add(b.source("a"), "new1", "new2")
	b.reopen() // the numbers are taken up again, in both epochs
	c := b.cursor(store.CursorConfig{})
	b.start()
	b.add(b.source("a"), "new3")
	if d := b.Devices(); len(d) != 2 || d[0].Last != 3 || d[1].Last != 0 {
		t.Errorf("%+v", d)
	}
	var items []store.Item
	for len(items) < 9 {
		more, err := c.Read(b.Context(), nil, 9, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, more...)
	}
	for i, item := range items {
		epoch, seq := old, uint64(i/2+1)
		if i >= 6 {
			epoch, seq = b.Epoch(), uint64(i-5)
		}
		if item.Source.Key().Epoch != epoch || item.Seq != seq {
			t.Errorf("item %d: %+v, %+v", i, item.Source.Key(), item)
		}
	}
}

// One bit of bbolt's newest meta page: the page is invalid then, and the one before
// counts.
func TestAFlippedBitThatHidesTheLastCommitIsNoticed(t *testing.T) {
	b := newBed(t, store.Config{})
	epoch := b.Epoch()
	few(b, 3)
	flipNewestMeta(t, filepath.Join(b.dir, store.FileName))
	expectEpoch(t, b, epoch, "last commits are gone (1")
}

func flipNewestMeta(t *testing.T, path string) {
	t.Helper()
	change(t, path, func(b []byte) []byte {
		const txid = 16 + 48
		page := os.Getpagesize()
		if binary.NativeEndian.Uint64(b[page+txid:]) < binary.NativeEndian.Uint64(b[txid:]) {
			page = 0
		}
		b[page+txid+3] ^= 0x10
		return b
	})
}

// The file of a version that knew no witness has neither it, nor the key "state", nor
// checksums behind names and places.
func TestAFileOfBeforeThereWereWitnessesGetsOne(t *testing.T) {
	b := newBed(t, store.Config{})
	epoch := b.Epoch()
	few(b, 3)
	db, err := bolt.Open(filepath.Join(b.dir, store.FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{"dict.source", "dict.channel", "now.cursor", "now.gap"} {
			bucket := tx.Bucket([]byte(name))
			err := bucket.ForEach(func(k, v []byte) error { return bucket.Put(k, bytes.Clone(v[:len(v)-4])) })
			if err != nil {
				return err
			}
		}
		return tx.Bucket([]byte("about")).Delete([]byte("state"))
	})
	if err := errors.Join(err, db.Close(), os.Remove(filepath.Join(b.dir, store.WitnessName))); err != nil {
		t.Fatal(err)
	}
	expectEpoch(t, b, epoch, "")
	b.stop()
	if err := os.Remove(filepath.Join(b.dir, store.WitnessName)); err != nil {
		t.Fatal(err)
	}
	expectEpoch(t, b, epoch, "is missing")
}

func TestAQueueWhoseFileIsGoneBeginsANewOneAndSaysSo(t *testing.T) {
	b := newBed(t, store.Config{})
	epoch := b.Epoch()
	few(b, 3)
	if err := os.Remove(filepath.Join(b.dir, store.FileName)); err != nil {
		t.Fatal(err)
	}
	b.open()
	if st := b.Stats(); b.Epoch() == epoch || len(st.Notices) != 1 || !strings.Contains(st.Notices[0], "missing") {
		t.Errorf("%+v", st)
	}
	b.stop()
	epoch = b.Epoch()
	expectEpoch(t, b, epoch, "")
}
