package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// yard is a store whose file gives space back soon, with one cursor.
type yard struct {
	*rig
	big *Source // of records that are there to fill the file
}

func newYard(t *testing.T, dir string, faults disk) *yard {
	y := &yard{rig: newRig(t, dir, faults)}
	y.settle(time.Hour) // until it is wanted
	var err error
	if y.big, err = y.Source(SourceKey{Device: "big", Stream: "s"}); err != nil {
		t.Fatal(err)
	}
	return y
}

func (y *yard) settle(d time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.compact.settle = d
	y.wake()
}

// swell appends some MiB in records of 64 KiB, and delivers everything.
func (y *yard) swell(mib int) {
	y.Helper()
	y.fill(mib)
	y.deliver()
}

// deliver reads and acknowledges until nothing is left.
func (y *yard) deliver() {
	y.Helper()
	y.eventually("everything to be freed", func() bool {
		st := y.Stats()
		if st.Cursors[0].Lag > 0 {
			items, err := y.cursor.Read(y.Context(), nil, 1000, 4<<20)
			if err != nil {
				y.Fatal(err)
			}
			y.cursor.Ack(items[len(items)-1].Position)
		}
		return st.Cursors[0].Lag == 0 && st.Bytes < 1<<20
	})
}

func (y *yard) compactNow() error {
	ctx, cancel := context.WithTimeout(y.Context(), 30*time.Second)
	defer cancel()
	return y.Compact(ctx)
}

func TestTheFileGivesSpaceBackByItselfAndProducersDoNotWait(t *testing.T) {
	const stall = 50 * time.Millisecond
	y := newYard(t, t.TempDir(), disk{})
	ctx, cancel := context.WithCancel(t.Context())
	var draining atomic.Bool
	var longest atomic.Int64 // wait of a producer
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for i := range 8 {
		group.Go(func() { y.produce(ctx, fmt.Sprint("small-", i), &longest) })
	}
	group.Go(func() {
		for sleep(ctx, time.Millisecond) == nil {
			if !draining.Load() {
				continue
			}
			if items, err := y.cursor.Read(ctx, nil, 1000, 4<<20); err == nil {
				y.cursor.Ack(items[len(items)-1].Position)
			}
		}
	})
	// A shared disk has pauses of its own, so this looks up to three times, and knows
	// how long producers wait while the file is only filled.
	for look := 1; ; look++ {
		longest.Store(0)
		count := y.Stats().Compaction.Count
		y.fill(48)
		draining.Store(true)
		y.eventually("it to be freed", func() bool { return y.Stats().Bytes < 4<<20 })
		before := y.Stats()
		if before.FileBytes < 48<<20 {
			t.Fatalf("nothing to give back: %+v", before)
		}
		without := time.Duration(longest.Swap(0))
		y.settle(10 * time.Millisecond)
		y.eventually("the file to shrink", func() bool { return y.Stats().Compaction.Count > count })
		waited := time.Duration(longest.Load())
		y.settle(time.Hour)
		draining.Store(false)
		after := y.Stats()
		st := after.Compaction
		t.Logf("%d MiB, then %d, in %v; the swap took %v, the longest commit %v; a producer waited for %v, and for %v without", before.FileBytes>>20,
			after.FileBytes>>20, st.Took, st.Swap, st.Stall, waited, without)
		if after.FileBytes > 8<<20 || st.GivenBack < 40<<20 || st.Problem != "" {
			t.Fatalf("%+v", after)
		}
		if st.Swap < stall && waited < max(stall, 2*without) {
			return
		}
		if look == 3 {
			t.Fatalf("the swap took %v, and a producer waited for %v", st.Swap, waited)
		}
	}
}

// produce appends small records and notes how long one waited at most.
func (y *yard) produce(ctx context.Context, device string, longest *atomic.Int64) {
	source, err := y.Source(SourceKey{Device: device, Stream: "s"})
	if err != nil {
		y.Error(err)
	}
	for sleep(ctx, time.Millisecond) == nil {
		began := time.Now()
		c, err := y.Append(ctx, Batch{Entries: []Entry{{Source: source, Body: make([]byte, 256)}}})
		if err == nil {
			err = c.Wait(ctx)
		}
		if err != nil && ctx.Err() == nil {
			y.Error(err)
		}
		for took := int64(time.Since(began)); ; {
			before := longest.Load()
			if took <= before || longest.CompareAndSwap(before, took) {
				break
			}
		}
	}
}

// fill appends some MiB in records of 64 KiB.
func (y *yard) fill(mib int) {
	y.Helper()
	entries := make([]Entry, 8)
	for i := range entries {
		entries[i] = Entry{Source: y.big, Body: make([]byte, 64<<10)}
	}
	for range mib * 2 {
		c, err := y.Append(y.Context(), Batch{Entries: entries})
		if err != nil {
			y.Fatal(err)
		}
		y.wait(c)
	}
}

func TestAnIdleFileIsGivenBackAfterAWhileAndThenNothingIsWritten(t *testing.T) {
	y := newYard(t, t.TempDir(), disk{})
	y.swell(40)
	y.stop()
	y.open(disk{}) // what was free before the start counts, too
	y.settle(time.Millisecond)
	y.eventually("the file to shrink", func() bool { return y.Stats().Compaction.Count == 1 })
	before := y.Stats()
	if before.FileBytes > 2<<20 {
		t.Errorf("%+v", before)
	}
	if err := sleep(t.Context(), 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if after := y.Stats(); after.Commits != before.Commits || after.Compaction.Count != 1 {
		t.Errorf("%+v, then %+v", before, after)
	}
}

func TestCursorsReadOnWhileTheFileIsReplaced(t *testing.T) {
	y := newYard(t, t.TempDir(), disk{})
	const compactions, most = 25, 1 << 20
	var appended, acked atomic.Int64
	var group sync.WaitGroup
	done := make(chan struct{})
	group.Go(func() {
		defer close(done)
		for range compactions {
			if err := y.compactNow(); err != nil && !errors.Is(err, errTooBusy) {
				t.Error(err)
			}
		}
	})
	group.Go(func() {
		for range most {
			select {
			case <-done:
				return
			default:
			}
			for range 50 {
				y.append(500)
			}
			y.wait(y.append(500))
			appended.Store(int64(y.n))
		}
	})
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for next := 1; ; {
			to := int(appended.Load())
			select {
			case <-stop:
				acked.Store(int64(next))
				return
			default:
			}
			if to < next+100 {
				_ = sleep(t.Context(), time.Millisecond)
				continue
			}
			y.expect(next, next+99)
			y.cursor.Rewind()
			y.cursor.Ack(y.expect(next, next+49))
			y.cursor.Rewind()
			next += 50
		}
	})
	group.Wait()
	close(stop)
	reader.Wait()
	y.stop()
	if count := y.Stats().Compaction.Count; count == 0 {
		t.Error("no compaction was done")
	}
	n := y.n
	y.open(disk{})
	y.expect(int(acked.Load()), n)
}

func TestACompactionThatFailsChangesNothing(t *testing.T) {
	for name, fault := range map[string]func(*bolt.Tx) error{
		"nothing reached the disk": func(tx *bolt.Tx) error { return errors.Join(tx.Rollback(), syscall.EIO) },
		"all of it did":            func(tx *bolt.Tx) error { return errors.Join(tx.Commit(), syscall.EIO) },
		"bbolt panics":             func(tx *bolt.Tx) error { panic("page 7 already freed") },
	} {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			y := newYard(t, t.TempDir(), disk{commit: func(tx *bolt.Tx) error {
				if strings.HasSuffix(tx.DB().Path(), freshSuffix) && broken.Load() {
					return fault(tx)
				}
				return tx.Commit()
			}})
			for range 50 {
				y.wait(y.append(500))
			}
			y.put("key", "value")
			broken.Store(true)
			if err := y.compactNow(); err == nil {
				t.Error("it says that it has worked")
			}
			if st := y.Stats(); st.State != StateOK || st.Rescues != 0 || st.Failures != 0 || st.Compaction.Failed != 1 || st.Compaction.Problem == "" {
				t.Errorf("%+v", st)
			}
			if entries, err := os.ReadDir(y.dir); err != nil || len(entries) != 2 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
			y.wait(y.append(500))
			broken.Store(false)
			if err := y.compactNow(); err != nil {
				t.Error(err)
			}
			if st := y.Stats(); st.Compaction.Count != 1 || st.Compaction.Problem != "" {
				t.Errorf("%+v", st)
			}
			y.expect(1, 51)
			y.stop()
			y.open(disk{})
			y.expect(1, 51)
			if letters, err := y.Mailbox().All(); err != nil || len(letters) != 1 || string(letters[0].Value) != "value" {
				t.Errorf("%v, %+v", err, letters)
			}
		})
	}
}

func TestARenameThatMayNotBeOnDiskIsFollowedByARescue(t *testing.T) {
	var faults atomic.Int32
	y := newYard(t, t.TempDir(), disk{sync: func(dir string) error {
		if faults.Add(-1) >= 0 {
			return syscall.EIO
		}
		return syncDir(dir)
	}})
	for range 50 {
		y.wait(y.append(500))
	}
	faults.Store(2) // that of the compaction, and of the first rescue
	if err := y.compactNow(); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	y.wait(y.append(500))
	if st := y.Stats(); st.State != StateOK || st.Rescues != 1 {
		t.Errorf("%+v", st)
	}
	if err := y.compactNow(); err != nil {
		t.Error(err)
	}
	y.wait(y.append(500))
	y.expect(1, 52)
	y.stop()
	y.open(disk{})
	y.expect(1, 52)
}

func TestACompactionWithoutRoomForTheCopyIsPutOff(t *testing.T) {
	y := newYard(t, smallDisk(t, "24m"), disk{})
	y.wait(y.append(1 << 20))
	if err := os.WriteFile(filepath.Join(y.dir, "ballast"), make([]byte, 10<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := y.compactNow(); err == nil || !strings.Contains(err.Error(), "MiB free") {
		t.Error(err)
	}
	y.wait(y.append(1))
	y.expect(1, 2)
	if st := y.Stats(); st.State != StateOK || st.Compaction.Failed != 1 {
		t.Errorf("%+v", st)
	}
	y.stop()
}

func TestTwoCompactionsAtATimeAreOne(t *testing.T) {
	y := newYard(t, t.TempDir(), disk{})
	y.swell(8)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if err := y.compactNow(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if st := y.Stats(); st.Compaction.Count == 0 || st.Compaction.Count > 3 || st.Compaction.Running || st.Compaction.GivenBack < 6<<20 {
		t.Errorf("%+v", st)
	}
	y.stop()
	if err := y.compactNow(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestDamageIsCarriedOverAsItIs(t *testing.T) {
	y := newYard(t, t.TempDir(), disk{})
	var last *Commit
	for range 5 {
		last = y.append(600)
	}
	y.wait(last)
	y.wait(y.append(600))
	y.stop()
	flip(t, y.path, 40)
	y.open(disk{})
	if err := y.compactNow(); err != nil {
		t.Fatal(err)
	}
	items := readAll(y.rig)
	if len(items) != 6 {
		t.Fatalf("%d items: %+v", len(items), items)
	}
	for i, item := range items {
		if damaged := item.Gap != nil; damaged != (i == 2) || item.Position != uint64(i+1) {
			t.Errorf("%+v", item)
		}
	}
	if st := y.Stats(); st.Damaged != 1 {
		t.Errorf("%+v", st)
	}
}

func TestBucketsThatAreNotKnownHereComeAlong(t *testing.T) {
	y := newYard(t, t.TempDir(), disk{})
	y.wait(y.append(1))
	y.stop()
	change(t, y.path, func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("later"))
		if err != nil {
			return err
		}
		inner, err := b.CreateBucket([]byte("inner"))
		if err != nil {
			return err
		}
		for i := range 1000 {
			if err := inner.Put(fmt.Append(nil, i), make([]byte, i%50)); err != nil {
				return err
			}
		}
		return errors.Join(inner.SetSequence(7), b.Put([]byte("k"), []byte("v")), b.Put([]byte("empty"), nil))
	})
	before := dump(t, y.path)
	y.open(disk{})
	if err := y.compactNow(); err != nil {
		t.Fatal(err)
	}
	y.wait(y.append(1))
	if err := y.compactNow(); err != nil {
		t.Fatal(err)
	}
	y.stop()
	after := dump(t, y.path)
	for key, value := range before {
		if strings.HasPrefix(key, "later") && after[key] != value {
			t.Errorf("%s is %q and was %q", key, after[key], value)
		}
	}
	if len(before) < 1000 || len(after) < len(before) {
		t.Errorf("%d, then %d", len(before), len(after))
	}
}

func change(t *testing.T, path string, fn func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// dump lists everything in a file.
func dump(t *testing.T, path string) map[string]string {
	t.Helper()
	list := make(map[string]string)
	var walk func(prefix string, b *bolt.Bucket) error
	walk = func(prefix string, b *bolt.Bucket) error {
		list[prefix] = fmt.Sprint(b.Sequence())
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return walk(prefix+string(k)+"/", b.Bucket(k))
			}
			list[prefix+string(k)] = string(bytes.Clone(v))
			return nil
		})
	}
	change(t, path, func(tx *bolt.Tx) error { return walk("", tx.Cursor().Bucket()) })
	return list
}
