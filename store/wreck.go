package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// wreck is a damaged file, and what can still be read of it. It is read in two
// ways: down the tree as far as the tree goes, which finds what was current; then page
// by page, which finds what the tree does not lead to any more, and what it never will
// again, as bbolt leaves old pages behind. So what is only found in the second way
// counts only where the first has not seen all: see finds.
//
// Memory is bounded by the number of pages, not by what they hold.
type wreck struct {
	f        io.ReaderAt
	size     int64
	pageSize int64
	pages    uint64
	base     boltMeta // of the tree that was gone down; root 0: none
	whole    bool     // the tree is without a fault
	seen     []uint64 // a bit for each page that the tree has led to
	now      bool     // what is found is current
	damaged  int      // pages that the tree led to and that can't be read
	broken   map[string]bool
	finds
}

// inEverything stands for damage of the top level, which may have cost any bucket.
const inEverything = ""

// maxWreckValue bounds a value that is read into memory other than a segment's.
const maxWreckValue = 64 << 20

// errDisk is an error of the disk: nothing is known of the file then.
var errDisk = errors.New("the file can't be read")

// readWreck fails only where the disk does.
func readWreck(f io.ReaderAt, size int64) (*wreck, error) {
	w := &wreck{f: f, size: size, broken: make(map[string]bool), finds: newFinds()}
	if err := w.measure(); err != nil {
		return nil, err
	}
	w.pages = uint64((w.size + w.pageSize - 1) / w.pageSize)
	w.seen = make([]uint64, w.pages/64+1)
	if err := w.chooseTree(); err != nil {
		return nil, err
	}
	w.now = true
	if w.base.root == 0 {
		w.broken[inEverything] = true
	} else if err := w.tree(w.base.root, inEverything, 0); err != nil {
		return nil, err
	}
	w.now = false
	return w, w.scan()
}

// measure finds the size of the pages: a meta page says it, or else the pages do,
// each of which knows its number.
func (w *wreck) measure() error {
	if m, err := findMeta(w.f); err == nil {
		w.pageSize = m.pageSize
		return nil
	} else if isDiskError(err) {
		return err
	}
	best := 0
	w.pageSize = int64(os.Getpagesize())
	for size := int64(minPage); size <= 1<<16; size *= 2 {
		hits := 0
		b := make([]byte, pageHeader)
		for id := int64(2); id < min(w.size/size, 4096); id++ {
			if ok, err := w.readAt(b, id*size); err != nil {
				return err
			} else if ok && binary.NativeEndian.Uint64(b) == uint64(id) {
				hits++
			}
		}
		if hits > best {
			best, w.pageSize = hits, size
		}
	}
	return nil
}

// readAt reads all of b, or says that the file ends before. Its error is the
// disk's.
func (w *wreck) readAt(b []byte, at int64) (ok bool, err error) {
	if at < 0 || at+int64(len(b)) > w.size {
		return false, nil
	}
	if _, err := w.f.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("%w: %w", errDisk, err)
	}
	return true, nil
}

// chooseTree takes the newest meta page whose tree is without a fault, even if its
// own checksum is wrong; or else the newest with a good checksum.
func (w *wreck) chooseTree() error {
	var doubtful, good boltMeta
	for id := range int64(2) {
		b := make([]byte, pageHeader+metaSize)
		if ok, err := w.readAt(b, id*w.pageSize); err != nil {
			return err
		} else if !ok {
			continue
		}
		m := parseMeta(b[pageHeader:])
		m.pageSize, m.pages = w.pageSize, w.pages
		sound, err := w.sound(m)
		if err != nil {
			return err
		}
		if sound && m.txid >= doubtful.txid {
			doubtful = m
		}
		if v, err := readMeta(w.f, id*w.pageSize); err == nil && v.txid >= good.txid {
			good = m
		}
	}
	w.base, w.whole = good, doubtful.root != 0 && doubtful.txid >= good.txid
	if w.whole || good.root == 0 && doubtful.root != 0 {
		w.base, w.whole = doubtful, true
	}
	return nil
}

func parseMeta(b []byte) boltMeta {
	ne := binary.NativeEndian
	return boltMeta{root: ne.Uint64(b[16:]), txid: ne.Uint64(b[48:])}
}

// sound tells whether a meta page's tree is one of a queue, without a fault in its
// structure.
func (w *wreck) sound(m boltMeta) (bool, error) {
	c := fileChecker{f: w.f, meta: m, seen: make([]uint64, m.pages/64+1)}
	if err := c.tree(m.root, nil, nil, 0); isDiskError(err) {
		return false, fmt.Errorf("%w: %w", errDisk, err)
	} else if err != nil {
		return false, nil //nolint:nilerr // that is the answer
	}
	probe := &wreck{
		f: w.f, size: w.size, pageSize: w.pageSize, pages: w.pages, now: true,
		seen: make([]uint64, w.pages/64+1), broken: make(map[string]bool), finds: newFinds(),
	}
	if err := probe.tree(m.root, inEverything, 0); err != nil {
		return false, err
	}
	return probe.about != nil, nil
}

// isDiskError tells an error of reading from what was read.
func isDiskError(err error) bool {
	var failed *os.PathError
	return errors.As(err, &failed)
}

// leaf is a page of values, or one inside a bucket's value.
type leaf struct {
	b     []byte
	at    int64 // in the file
	total int64 // length, with a value that is not in b
}

// load reads a page and tells whether it can be one of this number. The file may end
// before the page does.
func (w *wreck) load(id uint64) (p leaf, flags uint16, ok bool, err error) {
	p = leaf{b: make([]byte, w.pageSize), at: int64(id) * w.pageSize, total: w.pageSize}
	if id < 2 || id >= w.pages {
		return p, 0, false, nil
	}
	if _, err := w.readAt(p.b[:min(w.pageSize, w.size-p.at)], p.at); err != nil {
		return p, 0, false, err
	}
	ne := binary.NativeEndian
	more := uint64(ne.Uint32(p.b[12:]))
	flags = ne.Uint16(p.b[8:])
	if ne.Uint64(p.b) != id || flags != leafPage && flags != branchPage ||
		pageHeader+int(ne.Uint16(p.b[10:]))*elemSize > len(p.b) {
		return p, 0, false, nil
	}
	p.total = int64(more+1) * w.pageSize
	return p, flags, true, nil
}

func (w *wreck) see(id, more uint64) (again bool) {
	for i := id; i <= id+more && i < w.pages; i++ {
		again = again || i == id && w.seen[i/64]&(1<<(i%64)) != 0
		w.seen[i/64] |= 1 << (i % 64)
	}
	return again
}

// tree goes down from a page of a bucket.
func (w *wreck) tree(id uint64, bucket string, depth int) error {
	p, flags, ok, err := w.load(id)
	if err != nil {
		return err
	}
	if !ok || depth > maxDepth || w.see(id, uint64(p.total/w.pageSize)-1) {
		w.fault(bucket)
		return nil
	}
	if flags == leafPage {
		return w.leaf(p, bucket, depth)
	}
	ne := binary.NativeEndian
	for i := range int(ne.Uint16(p.b[10:])) {
		if err := w.tree(ne.Uint64(p.b[pageHeader+i*elemSize+8:]), bucket, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// fault notes that something of a bucket is lost.
func (w *wreck) fault(bucket string) {
	if w.now {
		w.damaged++
		w.broken[kindOf(bucket)] = true
	}
}

// lacks tells whether the tree may not have shown all of a bucket.
func (w *wreck) lacks(bucket string) bool { return w.broken[bucket] || w.broken[inEverything] }

// leaf takes the elements of a page.
func (w *wreck) leaf(p leaf, bucket string, depth int) error {
	ne := binary.NativeEndian
	for i := range int(ne.Uint16(p.b[10:])) {
		at := pageHeader + i*elemSize
		if at+elemSize > len(p.b) {
			w.fault(bucket)
			return nil
		}
		e := p.b[at:]
		from := int64(at) + int64(ne.Uint32(e[4:]))
		to := from + int64(ne.Uint32(e[8:]))
		size := int64(ne.Uint32(e[12:]))
		if from >= to || to > int64(len(p.b)) || to+size > p.total {
			w.fault(bucket)
			continue
		}
		v := value{w: w, p: p, at: to, size: size}
		if err := w.element(ne.Uint32(e)&bucketFlag != 0, bucket, p.b[from:to], v, depth); err != nil {
			return err
		}
	}
	return nil
}

// value is one that may not have been read yet.
type value struct {
	w        *wreck
	p        leaf
	at, size int64 // in the page
}

// bytes reads it. One that is too large to be true is nil.
func (v *value) bytes() ([]byte, error) {
	if v.at+v.size <= int64(len(v.p.b)) {
		return v.p.b[v.at : v.at+v.size : v.at+v.size], nil
	}
	if v.size > maxWreckValue {
		return nil, nil
	}
	b := make([]byte, v.size)
	if ok, err := v.w.readAt(b, v.p.at+v.at); !ok || err != nil {
		return nil, err
	}
	return b, nil
}

// element takes one of a bucket's, or a bucket.
func (w *wreck) element(isBucket bool, bucket string, key []byte, v value, depth int) error {
	if !isBucket {
		if bucket == inEverything && w.now {
			w.fault(bucket) // there are only buckets
			return nil
		}
		return w.take(bucket, key, v)
	}
	name := string(key)
	if bucket != inEverything || !isBucketName(key) {
		if bucket != inEverything || isNearly(key) {
			w.fault(bucket)
		}
		return nil
	}
	b, err := v.bytes()
	if err != nil {
		return err
	}
	if len(b) < bucketHeader {
		w.fault(name)
		return nil
	}
	if root := binary.NativeEndian.Uint64(b); root != 0 {
		if !w.now {
			return nil // its pages come by themselves
		}
		return w.tree(root, name, depth+1)
	}
	in := leaf{b: b[bucketHeader:], at: v.p.at + v.at + bucketHeader, total: int64(len(b)) - bucketHeader}
	ne := binary.NativeEndian
	if len(in.b) < pageHeader || ne.Uint16(in.b[8:]) != leafPage || depth > maxDepth {
		w.fault(name)
		return nil
	}
	return w.leaf(in, name, depth+1)
}

// kindOf is the bucket's name, and one name for all segments.
func kindOf(bucket string) string {
	if isSegment([]byte(bucket)) {
		return segmentPrefix
	}
	return bucket
}

// scan looks at the pages that the tree has not led to.
func (w *wreck) scan() error {
	for id := uint64(2); id < w.pages; id++ {
		if w.seen[id/64]&(1<<(id%64)) != 0 {
			continue
		}
		p, flags, ok, err := w.load(id)
		if err != nil {
			return err
		}
		if !ok || flags != leafPage {
			continue
		}
		if err := w.leaf(p, inEverything, 0); err != nil {
			return err
		}
	}
	return nil
}

const maxSegmentBytes = math.MaxInt32
