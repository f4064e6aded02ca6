package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// The failures of a commit are made at the seam between the store and bbolt
// (disk): after the real thing, or instead of it. Where the kernel can be made to
// fail by itself, for want of space, it is.

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

type rig struct {
	*testing.T
	*Store
	dir    string
	cfg    Config
	cursor *Cursor
	source *Source
	n      int
	stop   func()
}

func newRig(t *testing.T, dir string, faults disk) *rig {
	t.Helper()
	r := &rig{T: t, dir: dir, cfg: Config{MaxSize: 64 << 20}}
	r.open(faults)
	return r
}

func (r *rig) open(faults disk) {
	r.Helper()
	var err error
	if r.Store, err = Open(r.dir, r.cfg, silent()); err != nil {
		r.Fatal(err)
	}
	if faults.commit != nil {
		r.disk.commit = faults.commit
	}
	if faults.sync != nil {
		r.disk.sync = faults.sync
	}
	if r.cursor, err = r.Cursor(CursorConfig{Name: "c"}); err != nil {
		r.Fatal(err)
	}
	if r.source, err = r.Source(SourceKey{Device: "d", Stream: "s"}); err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := r.Store
	go func() { done <- s.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		_ = s.Close()
		<-done
	})
	r.Cleanup(func() { r.stop() })
}

func (r *rig) append(size int) *Commit {
	r.Helper()
	r.n++
	body := append(fmt.Append(nil, r.n, " "), make([]byte, size)...)
	c, err := r.Append(r.Context(), Batch{Entries: []Entry{{Source: r.source, Body: body}}})
	if err != nil {
		r.Fatal(err)
	}
	return c
}

func (r *rig) put(key, value string) {
	r.Helper()
	c, err := r.Mailbox().Put(key, []byte(value))
	if err != nil {
		r.Fatal(err)
	}
	r.wait(c)
}

func (r *rig) wait(c *Commit) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	if err := c.Wait(ctx); err != nil {
		r.Fatalf("%v: %+v", err, r.Stats())
	}
}

// expect reads records from up to to, in order and once each.
func (r *rig) expect(from, to int) (position uint64) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	for n := from; n <= to; {
		items, err := r.cursor.Read(ctx, nil, to-n+1, 1<<30)
		if err != nil {
			r.Fatal(err)
		}
		for _, item := range items {
			var got int
			if _, err := fmt.Sscan(string(bytes.SplitN(item.Body, []byte(" "), 2)[0]), &got); err != nil || got != n || item.Seq != uint64(n) {
				r.Fatalf("record %d has seq %d, want %d", got, item.Seq, n)
			}
			n++
			position = item.Position
		}
	}
	return position
}

// undone commits, and takes the pages back but for the meta page: as after a failed
// sync whose pages the kernel has dropped.
func undone(tx *bolt.Tx) error {
	path := tx.DB().Path()
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	page := os.Getpagesize()
	for at := 2 * page; at < len(before); at += page {
		if _, err := f.WriteAt(before[at:at+page], int64(at)); err != nil {
			return err
		}
	}
	return syscall.EIO
}

func TestAFailedSyncAcknowledgesNothingUntilAllIsWrittenAnew(t *testing.T) {
	for name, fault := range map[string]func(*bolt.Tx) error{
		"nothing reached the disk": func(tx *bolt.Tx) error { return errors.Join(tx.Rollback(), syscall.EIO) },
		"all of it did":            func(tx *bolt.Tx) error { return errors.Join(tx.Commit(), syscall.EIO) },
		"only the meta page did":   undone,
		"bbolt panics": func(tx *bolt.Tx) error {
			panic("page 7 already freed")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var faults atomic.Int32
			r := newRig(t, t.TempDir(), disk{commit: func(tx *bolt.Tx) error {
				if faults.Add(-1) >= 0 {
					return fault(tx)
				}
				return tx.Commit()
			}})
			for range 50 {
				r.wait(r.append(500))
			}
			r.cursor.Ack(r.expect(1, 20))
			r.put("old", "before")
			r.put("key", "before")
			faults.Store(3) // the old file, and the fresh one twice
			letter, err := r.Mailbox().Put("key", []byte("after"))
			if err != nil {
				t.Fatal(err)
			}
			commit := r.append(500)
			for tick := time.Tick(time.Millisecond); r.Stats().State == StateOK; {
				<-tick
			}
			select {
			case <-commit.Done():
				t.Error("acknowledged while the disk fails")
			case <-letter.Done():
				t.Error("acknowledged while the disk fails")
			default:
			}
			if st := r.Stats(); st.State != StateFailing || st.Reason == "" || st.Since.IsZero() {
				t.Errorf("%+v", st)
			}
			r.expect(21, 50) // reading goes on
			r.wait(commit)
			r.wait(letter)
			if st := r.Stats(); st.State != StateOK || st.Rescues != 1 {
				t.Errorf("%+v", st)
			}
			r.wait(r.append(500))
			r.expect(51, 52)
			r.stop()
			r.open(disk{})
			r.expect(21, 52)
			if letters, err := r.Mailbox().All(); err != nil || len(letters) != 2 ||
				string(letters[0].Value) != "after" || string(letters[1].Value) != "before" {
				t.Errorf("%v, %+v", err, letters)
			}
			if entries, err := os.ReadDir(r.dir); err != nil || len(entries) != 2 { // the queue and its witness
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

func TestADiskThatFailsNowAndThenLosesNothing(t *testing.T) {
	faults := []func(*bolt.Tx) error{
		func(tx *bolt.Tx) error { return errors.Join(tx.Rollback(), syscall.EIO) },
		func(tx *bolt.Tx) error { return errors.Join(tx.Commit(), syscall.EIO) },
		undone,
	}
	r := newRig(t, t.TempDir(), disk{
		commit: func(tx *bolt.Tx) error {
			if i := rand.IntN(20); i < len(faults) {
				return faults[i](tx)
			}
			return tx.Commit()
		},
		sync: func(dir string) error {
			if rand.IntN(4) == 0 {
				return syscall.EIO
			}
			return syncDir(dir)
		},
	})
	for range 10 {
		first := r.n + 1
		for range 10 {
			r.append(rand.IntN(10000))
		}
		r.wait(r.append(100))
		r.cursor.Ack(r.expect(first, r.n))
	}
	if r.Stats().Rescues == 0 {
		t.Log("no commit failed")
	}
	r.wait(r.append(0))
	r.stop()
	r.open(disk{})
	if lag := r.Stats().Cursors[0].Lag; lag == 0 {
		t.Error("the last record is gone")
	}
}

// smallDisk is a file system in memory.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("this test mounts a small file system, for which it must be root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAFullDiskStopsAcknowledgementsUntilThereIsRoom(t *testing.T) {
	dir := smallDisk(t, "8m")
	r := newRig(t, dir, disk{})
	commits := r.appendUntilFull(10000)
	st := r.Stats()
	if st.State != StateFull || st.Reason == "" || st.Bytes > 8<<20 || !st.DiskLow {
		t.Errorf("%+v", st)
	}
	if _, err := r.Append(expired(t), Batch{Delay: true, Entries: []Entry{{Source: r.source, Body: make([]byte, 10000)}}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a poll was accepted: %v", err)
	}
	stored := int(st.Appended)
	r.expect(1, stored)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		r.wait(c)
	}
	r.wait(r.append(1))
	if st := r.Stats(); st.State != StateOK || st.Rescues != 0 {
		t.Errorf("%+v", st)
	}
	r.expect(stored+1, r.n)
	r.stop()
	r.open(disk{})
	r.expect(1, r.n)
	r.stop()
}

// appendUntilFull appends until the store says that it is full, and takes no more.
func (r *rig) appendUntilFull(size int) (commits []*Commit) {
	r.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		body := append(fmt.Append(nil, r.n+1, " "), make([]byte, size)...)
		ctx, cancel := context.WithTimeout(r.Context(), 200*time.Millisecond)
		c, err := r.Append(ctx, Batch{Entries: []Entry{{Source: r.source, Body: body}}})
		cancel()
		switch {
		case err == nil:
			r.n++
			commits = append(commits, c)
		case !errors.Is(err, context.DeadlineExceeded):
			r.Fatal(err)
		case r.Stats().State == StateFull:
			return commits
		}
	}
	r.Fatalf("it is never full: %+v", r.Stats())
	return nil
}

func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestWhatCanNotBeCommittedAtTheEndIsGivenUpAndItsNumbersToo(t *testing.T) {
	broken := atomic.Bool{}
	r := newRig(t, t.TempDir(), disk{commit: func(tx *bolt.Tx) error {
		if broken.Load() {
			return errors.Join(tx.Rollback(), &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
		}
		return tx.Commit()
	}})
	r.wait(r.append(1))
	broken.Store(true)
	commit := r.append(1)
	for tick := time.Tick(time.Millisecond); r.Stats().State == StateOK; {
		<-tick
	}
	r.stop()
	if <-commit.Done(); !errors.Is(commit.Err(), ErrClosed) {
		t.Error(commit.Err())
	}
	broken.Store(false)
	r.open(disk{})
	r.n = 1
	r.wait(r.append(1))
	r.expect(1, 2)
}

func TestADamagedRecordIsAnnouncedAndTheRestDelivered(t *testing.T) {
	for name, damage := range map[string]struct {
		offset int // in record 3
		gap    bool
	}{
		"its body":   {offset: 40, gap: true},
		"its length": {offset: 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, t.TempDir(), disk{})
			var last *Commit
			for range 5 {
				last = r.append(600)
			}
			r.wait(last)
			r.stop()
			flip(t, r.path, damage.offset)
			r.open(disk{})
			items := readAll(r)
			want := 4
			if damage.gap {
				want = 5
			}
			if len(items) != want {
				t.Fatalf("%d items: %+v", len(items), items)
			}
			for _, item := range items {
				if g := item.Gap; g != nil && (g.From != 3 || g.To != 3 || g.Count != 1 || g.Reason != "damage" || item.Position != 3) {
					t.Errorf("%+v", g)
				}
			}
			if st := r.Stats(); st.Damaged != 1 || st.Cursors[0].Lag != uint64(want) {
				t.Errorf("%+v", st)
			}
			r.cursor.Ack(items[want-1].Position)
			r.wait(r.append(1))
			if next := readAll(r); len(next) != 1 || next[0].Seq != 6 || next[0].Position != 6 {
				t.Errorf("%+v", next)
			}
		})
	}
}

func readAll(r *rig) (list []Item) {
	r.Helper()
	for r.Stats().Cursors[0].Lag > uint64(len(list)) {
		items, err := r.cursor.Read(r.Context(), nil, 100, 1<<20)
		if err != nil {
			r.Fatal(err)
		}
		list = append(list, items...)
	}
	return list
}

// flip changes a byte of the third record.
func flip(t *testing.T, path string, offset int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, append([]byte("3 "), make([]byte, 600)...))
	if at < 0 || bytes.Contains(b[at+1:], append([]byte("3 "), make([]byte, 600)...)) {
		t.Fatal("record 3 is not in the file, or more than once")
	}
	start := at - 2 - 4 - 1 - 1 - 8 // length, checksum, source, seq, time
	b[start+offset] ^= 0x11
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestADirectoryAboveThatNeedsNoSyncIsNoHindrance(t *testing.T) {
	s := &Store{path: "/proc/self/x/queue.db", disk: disk{sync: func(string) error { return nil }}}
	if err := syncDir("/proc/self"); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("this test needs a file system that can't sync: %v", err)
	}
	if err := s.syncNames(); err != nil {
		t.Error(err)
	}
	s.disk.sync = func(string) error { return syscall.EIO }
	if err := s.syncNames(); !errors.Is(err, syscall.EIO) {
		t.Error("its own directory was not synced, and nothing is said")
	}
}
