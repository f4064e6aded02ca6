package store

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A small disk is a file system in memory; fillDisk takes its last byte.
func fillDisk(t *testing.T, dir string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	if out, err := exec.Command("sh", "-c", "cat /dev/zero >>"+ballast+" 2>/dev/null; true").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if free, _, err := diskFree(ballast); err != nil || free != 0 {
		t.Fatalf("%d bytes are free, %v", free, err)
	}
	return ballast
}

func (r *rig) eventually(what string, done func() bool) {
	r.Helper()
	end := time.Now().Add(30 * time.Second)
	for tick := time.Tick(2 * time.Millisecond); !done(); <-tick {
		if time.Now().After(end) {
			r.Fatalf("waiting for %s: %+v", what, r.Stats())
		}
	}
}

// With blocks taken in advance, and on a file system that does not give any.
func TestOnADiskThatIsFullToTheLastByteEverythingButRecordsGoesOn(t *testing.T) {
	for _, never := range []bool{false, true} {
		t.Run(fmt.Sprint("blocks in advance ", !never), func(t *testing.T) {
			dir := smallDisk(t, "24m")
			r := &rig{T: t, dir: dir, cfg: Config{MaxSize: 64 << 20, CommitDelay: 10 * time.Millisecond}}
			r.open(disk{})
			r.headroom.never = never // before its first commit
			for range 100 {
				r.wait(r.append(10000))
			}
			r.put("command", "old")
			ballast := fillDisk(t, dir)
			commits := r.appendUntilFull(10000)
			if st := r.Stats(); !st.DiskLow || !strings.Contains(st.Reason, "the disk is full") {
				t.Errorf("%+v", st)
			}

			// The mailbox takes commands, acknowledgements go on disk, and what they
			// free is room for records again.
			for i := range 50 {
				r.put("command", fmt.Sprint("new ", i))
			}
			stored := int(r.Stats().Appended)
			if stored < 100 {
				t.Fatalf("%+v", r.Stats())
			}
			position := r.expect(1, stored)
			r.cursor.Ack(position)
			r.eventually("all to be stored and delivered", func() bool {
				if lag := r.Stats().Cursors[0].Lag; lag > 0 {
					position = r.expect(int(position)+1, int(position+lag))
					r.cursor.Ack(position)
				}
				return position == uint64(r.n)
			})
			for _, c := range commits {
				r.wait(c)
			}
			stored = r.n
			r.eventually("delivered records to be freed", func() bool { return r.Stats().Bytes < 500_000 })
			for range 20 {
				r.wait(r.append(10000))
				r.put("command", "newest")
			}
			n := r.n
			saved := r.Stats()
			r.stop()
			r.open(disk{})
			if st := r.Stats(); st.Cursors[0].Acked < position || st.Records > saved.Records {
				t.Errorf("%+v, then %+v", saved, st)
			}
			r.expect(stored+1, n)
			if letters, err := r.Mailbox().All(); err != nil || len(letters) != 1 || string(letters[0].Value) != "newest" {
				t.Errorf("%v, %+v", err, letters)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			r.eventually("records to be taken again", func() bool {
				_, err := r.Append(t.Context(), Batch{NoWait: true, Entries: []Entry{{Source: r.source, Body: []byte(fmt.Sprint(n+1, " "))}}})
				return err == nil
			})
			r.stop()
		})
	}
}

func TestBelowMinFreeTheFileDoesNotGrow(t *testing.T) {
	const minFree = 8 << 20
	dir := smallDisk(t, "64m")
	r := &rig{T: t, dir: dir, cfg: Config{MaxSize: 256 << 20, MinFree: minFree, CommitDelay: time.Millisecond}}
	r.open(disk{})
	commits := r.appendUntilFull(50000)
	for _, c := range commits {
		r.wait(c)
	}
	st := r.Stats()
	if !st.DiskLow || st.MinFree != minFree || st.DiskFree > minFree || st.DiskFree < minFree/4 || st.Failures > 0 ||
		!strings.Contains(st.Reason, "min_free is 8 MiB") {
		t.Errorf("%+v", st)
	}
	r.put("key", "value")
	r.cursor.Ack(r.expect(1, r.n/2))
	r.eventually("room inside the file", func() bool { return r.Stats().Bytes < st.Bytes*2/3 })
	half := r.n
	r.wait(r.append(50000))
	r.eventually("the state to be ok", func() bool { return r.Stats().State == StateOK })
	if after := r.Stats(); !after.DiskLow || after.FileBytes > st.FileBytes+1<<20 {
		t.Errorf("%+v", after)
	}
	r.cursor.Ack(r.expect(half/2+1, r.n))
	r.stop()

	// At the next start, with more room on the disk, it grows again.
	grown := exec.Command("mount", "-o", "remount,size=128m", dir)
	if out, err := grown.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	r.open(disk{})
	r.wait(r.append(50000))
	if after := r.Stats(); after.DiskLow || after.State != StateOK {
		t.Errorf("%+v", after)
	}
	r.stop()
}

func TestWithDropOldestAFullDiskKeepsTheNewest(t *testing.T) {
	dir := smallDisk(t, "24m")
	r := &rig{T: t, dir: dir, cfg: Config{MaxSize: 64 << 20, WhenFull: DropOldest, CommitDelay: time.Millisecond}}
	r.open(disk{})
	for range 200 {
		r.wait(r.append(20000))
	}
	fillDisk(t, dir)
	for range 400 {
		r.wait(r.append(20000))
	}
	st := r.Stats()
	if len(st.Cursors[0].Dropped) != 1 || st.Cursors[0].Dropped[0].Records < 100 || st.Records < 50 {
		t.Errorf("%+v", st)
	}
	next := uint64(1)
	for next <= uint64(r.n) {
		items, err := r.cursor.Read(t.Context(), nil, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			from, to := item.Seq, item.Seq
			if item.Gap != nil {
				from, to = item.Gap.From, item.Gap.To
			}
			if from != next {
				t.Fatalf("%d comes after %d", from, next-1)
			}
			next = to + 1
		}
		r.cursor.Ack(items[len(items)-1].Position)
	}
	r.stop()
}

// A checkpoint that is written while records wait must not count their numbers.
func TestWhatIsCommittedAsideSaysNothingOfTheRecordsThatWait(t *testing.T) {
	var broken atomic.Bool
	dir := t.TempDir()
	r := newRig(t, dir, disk{commit: func(tx *bolt.Tx) error {
		if broken.Load() && !isAside(tx) {
			return errors.Join(tx.Rollback(), errNoRoom)
		}
		return tx.Commit()
	}})
	channel, err := r.Channel(ChannelKey{Sender: "sender", Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	number := uint64(0)
	add := func() *Commit {
		number++
		r.n++
		c, err := r.Append(t.Context(), Batch{
			Channel: channel, Previous: number - 1,
			Entries: []Entry{{Source: r.source, Number: number, Body: fmt.Append(nil, r.n, " ")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for range 10 {
		r.wait(add())
	}
	fresh, err := r.Source(SourceKey{Device: "fresh", Stream: "s"})
	if err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	waits := []*Commit{add(), add()}
	if _, err := r.Append(t.Context(), Batch{Entries: []Entry{{Source: fresh, Body: []byte("1 ")}}}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the commit to fail", func() bool { return r.Stats().State == StateFull })
	waits = append(waits, add())
	r.cursor.Ack(r.expect(1, 10))
	r.put("key", "value") // is on disk
	r.eventually("what is delivered to be freed", func() bool { return r.Stats().Bytes == 0 })

	copied := t.TempDir()
	whole, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, FileName), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	change(t, filepath.Join(copied, FileName), func(tx *bolt.Tx) error {
		at := tx.Bucket([]byte(checkpointBucket)).Get([]byte(checkpointKey))
		position, ok := decodeCheckpoint(at,
			func(_ uint32, last uint64) {
				if last != 10 && last != 0 {
					t.Errorf("a device's last number is %d", last)
				}
			},
			func(_ uint32, last uint64) {
				if last != 10 {
					t.Errorf("the channel's last number is %d", last)
				}
			})
		if !ok || position != 10 {
			t.Errorf("the checkpoint is of position %d", position)
		}
		return nil
	})

	broken.Store(false)
	for _, c := range waits {
		r.wait(c)
	}
	if channel.Safe() != number {
		t.Errorf("safe is %d of %d", channel.Safe(), number)
	}
	r.stop()
	r.open(disk{})
	if st := r.Stats(); st.Records != 4 {
		t.Errorf("%+v", st)
	}
	if list := r.Devices(); len(list) != 2 || list[0].Last != 13 || list[1].Last != 1 {
		t.Errorf("%+v", list)
	}
}

// isAside tells that a transaction brings no segment.
func isAside(tx *bolt.Tx) bool {
	last := uint64(0)
	for at := findSegment(tx, 1); at.found(); at.next() {
		last = at.first()
	}
	return last <= 10
}
