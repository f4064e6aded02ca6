package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mcp-edge/edge-agent/store"
	bolt "go.etcd.io/bbolt"
)

// filled returns the file of a queue with some records in several segments.
func filled(t *testing.T) (dir, path string) {
	t.Helper()
	b := newBed(t, store.Config{})
	b.cursor(store.CursorConfig{})
	b.start()
	for range 100 {
		b.add(b.source("d"), strings.Repeat("x", 3000), "y")
	}
	b.stop()
	return b.dir, filepath.Join(b.dir, store.FileName)
}

// refused opens the file as tools do, that must not change it.
func refused(t *testing.T, dir string, want error) {
	t.Helper()
	path := filepath.Join(dir, store.FileName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenIntact(dir, store.Config{MaxSize: 8 << 20}, quiet())
	if err == nil {
		s.Close()
		t.Fatal("it was opened")
	}
	if !errors.Is(err, want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), ";") {
		t.Errorf("the error is %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
}

func change(t *testing.T, path string, by func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, by(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAQueueThatIsInUseIsLeftToItsUser(t *testing.T) {
	b := newBed(t, store.Config{})
	if _, err := store.Open(b.dir, b.cfg, quiet()); !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), "data_dir") {
		t.Errorf("the error is %v", err)
	}
}

func TestAFileThatAnotherProgramHasOpenIsLeftAlone(t *testing.T) {
	dir, path := filled(t)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	refused(t, dir, store.ErrLocked)
}

func TestAFileOfAnotherKindIsLeftAloneByTools(t *testing.T) {
	dir, path := filled(t)
	change(t, path, func([]byte) []byte { return bytes.Repeat([]byte("text"), 10000) })
	refused(t, dir, store.ErrForeign)
}

func TestAnotherProgramsDatabaseIsLeftAloneByTools(t *testing.T) {
	dir, path := filled(t)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	refused(t, dir, store.ErrForeign)
}

func TestAFileOfANewerVersionIsLeftAloneByTools(t *testing.T) {
	dir, path := filled(t)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("about"))
		return errors.Join(b.Delete([]byte("state")), b.Put([]byte("format"), binary.LittleEndian.AppendUint32(nil, 99)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, store.ErrNewer)
}

func TestAFileThatIsCutShortIsLeftAloneByTools(t *testing.T) {
	for _, size := range []int{0, 1000, 8192, 100_000} {
		dir, path := filled(t)
		change(t, path, func(b []byte) []byte { return b[:size] })
		want := store.ErrDamaged
		if size == 1000 {
			want = nil // too little is left to tell what it was
		}
		if want != nil {
			refused(t, dir, want)
		} else if s, err := store.OpenIntact(dir, store.Config{MaxSize: 8 << 20}, quiet()); err == nil {
			s.Close()
			t.Errorf("%d bytes: it was opened", size)
		}
	}
}

func TestADamagedPageIsFoundBeforeItIsUsed(t *testing.T) {
	dir, path := filled(t)
	change(t, path, func(b []byte) []byte {
		// All pages but the meta pages lose their headers.
		for at := 2 * os.Getpagesize(); at < len(b); at += os.Getpagesize() {
			copy(b[at:], make([]byte, 16))
		}
		return b
	})
	refused(t, dir, store.ErrDamaged)
}

func TestWhatIsWrongWithTheConfigurationIsSaid(t *testing.T) {
	for want, cfg := range map[string]store.Config{
		"max_size":     {MaxSize: 1},
		"when_full":    {MaxSize: 1 << 20, WhenFull: "panic"},
		"commit_delay": {MaxSize: 1 << 20, CommitDelay: -1},
	} {
		if _, err := store.Open(t.TempDir(), cfg, quiet()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
