package store

import (
	"errors"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// An Ack may come while a commit is under way, whose plan knows nothing of it.
func TestAGapThatIsAcknowledgedDuringACommitLeavesTheFileWithTheNextOne(t *testing.T) {
	s, err := Open(t.TempDir(), Config{MaxSize: 1 << 20}, silent())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := s.Cursor(CursorConfig{Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	stored := func() (list []missing) {
		err := s.db.View(func(tx *bolt.Tx) error {
			value, _ := unsum(gapBucket, []byte("c"), tx.Bucket([]byte(gapBucket)).Get([]byte("c")), false)
			list, _ = decodeMissing(value, 1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	acknowledge := func() { c.missing, c.changed = nil, true } // as settle does
	c.missing, c.changed = []missing{{from: 1, to: 2}}, true
	p := s.plan(s.take())
	acknowledge()
	if err := s.transact(p); err != nil {
		t.Fatal(err)
	}
	s.publish(p, 0)
	if len(stored()) != 1 {
		t.Fatal("the gap was not in the file")
	}
	if err := s.commit(s.take()); err != nil {
		t.Fatal(err)
	}
	if list := stored(); len(list) > 0 {
		t.Errorf("still in the file: %+v", list)
	}

	// One that fails leaves all to the next.
	c.missing, c.changed = []missing{{from: 3, to: 4}}, true
	commit := s.disk.commit
	s.disk.commit = func(tx *bolt.Tx) error { return errors.Join(tx.Rollback(), errNoRoom) }
	if err := s.commit(s.take()); err == nil {
		t.Fatal("the commit has not failed")
	}
	s.disk.commit = commit
	if err := s.commit(s.take()); err != nil {
		t.Fatal(err)
	}
	if len(stored()) != 1 {
		t.Error("the gap is not in the file after a commit that failed and one that did not")
	}
}
