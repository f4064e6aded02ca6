package store

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"
)

// transfer brings what lives in the queue's file into a fresh one. It can be done
// piece by piece while the queue goes on: a segment's value never changes, so it is
// copied once, as it is, damaged or not. Everything else is small, and compared key
// by key; so buckets that this code does not know come along, too.
type transfer struct {
	store *Store
	db    *bolt.DB           // the fresh file
	file  *os.File           // the same
	have  map[uint64]segment // in it, by their first position
	roots map[string]uint64  // pages of the queue's other buckets, as of the last compare
	old   *bolt.DB           // what the fresh file has taken the place of
}

func newTransfer(s *Store, need int64) (*transfer, error) {
	db, err := s.openFresh(need)
	if err != nil {
		return nil, err
	}
	t := &transfer{store: s, db: db, have: make(map[uint64]segment)}
	if t.file, err = os.OpenFile(s.path+freshSuffix, os.O_RDWR, 0); err != nil {
		_ = db.Close()
		return nil, err
	}
	return t, nil
}

// discard throws the fresh file away.
func (t *transfer) discard() {
	_ = t.file.Close()
	_ = t.db.Close()
	_ = os.Remove(t.store.path + freshSuffix)
}

// release closes what the fresh file has taken the place of, when nobody reads in it
// any more.
func (t *transfer) release() {
	_ = t.file.Close()
	_ = t.old.Close()
}

// lacks returns the segments that live and are not in the fresh file.
func (t *transfer) lacks() (list []segment, size int64) {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		if !t.has(seg) {
			list = append(list, seg)
			size += seg.bytes
		}
	}
	return list, size
}

func (t *transfer) has(seg segment) bool {
	had, ok := t.have[seg.first]
	return ok && had.last == seg.last && had.bytes == seg.bytes
}

// whole brings everything over, while the queue stands still.
func (t *transfer) whole() error {
	const piece = 8 << 20 // bytes a transaction, for memory's sake
	list, _ := t.lacks()
	return t.store.view(func(src *bolt.Tx) (err error) {
		for len(list) > 0 && err == nil {
			list, err = t.copy(src, list, piece)
		}
		if err != nil {
			return err
		}
		return t.finish(src, false)
	})
}

// complete tells that each segment that the queue has is in the fresh file.
func (t *transfer) complete() error {
	if list, _ := t.lacks(); len(list) > 0 {
		return fmt.Errorf("%w: the records from position %d on are not where they should be", ErrDamaged, list[0].first)
	}
	return nil
}

// copy brings over the first segments of list, about limit bytes but at least one,
// and returns the rest of it. Those that are gone by now are left out.
func (t *transfer) copy(src *bolt.Tx, list []segment, limit int64) (rest []segment, err error) {
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	tx, err := begin(t.db, true)
	if err != nil {
		return nil, err
	}
	defer rollback(tx, &err)
	tx.Cursor().Bucket().FillPercent = 1
	for size := int64(0); len(list) > 0 && (size == 0 || size+list[0].bytes <= limit); list = list[1:] {
		if err := t.put(tx, src, list[0]); err != nil {
			return nil, err
		}
		size += list[0].bytes
	}
	return list, tx.Commit()
}

func (t *transfer) put(tx, src *bolt.Tx, seg segment) error {
	b := src.Bucket(segmentName(seg.first))
	if b == nil {
		return nil
	}
	value := b.Get([]byte(valueKey))
	if int64(len(value)) != seg.bytes {
		return nil // folded since
	}
	if _, ok := t.have[seg.first]; ok {
		if err := deleteSegments(tx, []segment{seg}); err != nil {
			return err
		}
	}
	t.have[seg.first] = seg
	return putSegment(tx, seg.first, value)
}

// finish takes out of the fresh file what is gone, and brings over what is left and
// all that is no segment. With trust it passes over buckets that have not changed
// since the last time, whose transaction must still be open: that keeps their pages
// from being used anew.
func (t *transfer) finish(src *bolt.Tx, trust bool) (err error) {
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	list, _ := t.lacks()
	tx, err := begin(t.db, true)
	if err != nil {
		return err
	}
	defer rollback(tx, &err)
	tx.Cursor().Bucket().FillPercent = 1
	gone := t.gone()
	if err := deleteSegments(tx, gone); err != nil {
		return err
	}
	for _, seg := range gone {
		delete(t.have, seg.first)
	}
	for _, seg := range list {
		if err := t.put(tx, src, seg); err != nil {
			return err
		}
	}
	if err := t.others(tx, src, trust); err != nil {
		return err
	}
	return tx.Commit()
}

// gone are the segments of the fresh file that live no more.
func (t *transfer) gone() (list []segment) {
	s := t.store
	left := maps.Clone(t.have)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		if t.has(seg) {
			delete(left, seg.first)
		}
	}
	for _, seg := range left {
		list = append(list, seg)
	}
	return list
}

// others brings over the buckets that are no segments.
func (t *transfer) others(tx, src *bolt.Tx, trust bool) error {
	roots := make(map[string]uint64)
	same := func(name []byte) bool {
		if isSegment(name) {
			return true
		}
		b := src.Bucket(name)
		if b == nil {
			return false
		}
		root := uint64(b.Root())
		roots[string(name)] = root
		return trust && root != 0 && root == t.roots[string(name)]
	}
	if err := match(tx.Cursor().Bucket(), src.Cursor().Bucket(), same); err != nil {
		return err
	}
	t.roots = roots
	return nil
}

// match makes dst hold what src does. Buckets for which same says so are left as they
// are.
func match(dst, src *bolt.Bucket, same func(name []byte) bool) error {
	type pair struct{ key, value []byte }
	var put, gone []pair // dst must not change while a cursor goes through it
	to, from := dst.Cursor(), src.Cursor()
	dk, dv := to.First()
	sk, sv := from.First()
	for dk != nil || sk != nil {
		order := bytes.Compare(dk, sk)
		if sk == nil || dk != nil && order < 0 {
			if dv != nil || !same(dk) {
				gone = append(gone, pair{dk, dv})
			}
			dk, dv = to.Next()
			continue
		}
		if dk == nil || order > 0 {
			if sv != nil || !same(sk) {
				put = append(put, pair{sk, sv})
			}
			sk, sv = from.Next()
			continue
		}
		switch {
		case (dv == nil) != (sv == nil):
			gone = append(gone, pair{dk, dv})
			put = append(put, pair{sk, sv})
		case sv == nil && same(sk):
		case sv == nil || !bytes.Equal(dv, sv):
			put = append(put, pair{sk, sv})
		}
		dk, dv = to.Next()
		sk, sv = from.Next()
	}
	for _, p := range gone {
		remove := dst.Delete
		if p.value == nil {
			remove = dst.DeleteBucket
		}
		if err := remove(p.key); err != nil {
			return err
		}
	}
	for _, p := range put {
		if p.value != nil {
			if err := dst.Put(p.key, p.value); err != nil {
				return err
			}
			continue
		}
		b, err := dst.CreateBucketIfNotExists(p.key)
		if err != nil {
			return err
		}
		from := src.Bucket(p.key)
		b.FillPercent = 1 // most keys rise
		if b.Sequence() != from.Sequence() {
			if err := b.SetSequence(from.Sequence()); err != nil {
				return err
			}
		}
		if err := match(b, from, func([]byte) bool { return false }); err != nil {
			return err
		}
	}
	return nil
}
