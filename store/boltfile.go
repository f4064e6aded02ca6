package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"
)

// checkFile looks through a bbolt file before bbolt does. bbolt trusts what it
// maps: over a damaged or cut file it panics or faults, some of it in goroutines of
// its own, where nothing can be done about it. Values are not read here; records
// have checksums.
//
// The format is bbolt's, version 2, in the machine's byte order.

const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeader = 16 // id u64, flags u16, count u16, overflow u32
	metaSize   = 64 // behind a page header
	elemSize   = 16 // of an element of a branch or leaf page

	branchPage = 0x01
	leafPage   = 0x02

	bucketFlag   = 0x01 // of a leaf's element
	bucketHeader = 16   // root u64, sequence u64; an inline bucket's page follows

	minPage, maxPage = 1 << 10, 1 << 20 // sizes

	maxDepth = 64 // of pages from the root: far more than a file can need
)

var errNotBolt = errors.New("it is not a bbolt file")

type boltMeta struct {
	pageSize int64
	root     uint64
	pages    uint64 // high-water mark
	txid     uint64
}

// readMeta reads the meta page at an offset.
func readMeta(f io.ReaderAt, offset int64) (m boltMeta, err error) {
	b := make([]byte, pageHeader+metaSize)
	if _, err := f.ReadAt(b, offset); isDiskError(err) {
		return m, err
	} else if err != nil {
		return m, errNotBolt
	}
	b = b[pageHeader:]
	ne := binary.NativeEndian
	if ne.Uint32(b) != boltMagic || ne.Uint32(b[4:]) != boltVersion {
		return m, errNotBolt
	}
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSize-8])
	if ne.Uint64(b[metaSize-8:]) != sum.Sum64() {
		return m, errors.New("both of its meta pages are damaged")
	}
	m = boltMeta{
		pageSize: int64(ne.Uint32(b[8:])), root: ne.Uint64(b[16:]), pages: ne.Uint64(b[40:]), txid: ne.Uint64(b[48:]),
	}
	if m.pageSize < minPage || m.pageSize > maxPage || m.pages > math.MaxInt64/maxPage {
		return m, errNotBolt
	}
	return m, nil
}

// findMeta reads the newer of the two meta pages that is valid. The second one
// stands behind the first, whose size only the pages themselves tell.
func findMeta(f io.ReaderAt) (boltMeta, error) {
	first, err := readMeta(f, 0)
	if err == nil {
		if second, err := readMeta(f, first.pageSize); err == nil && second.txid > first.txid {
			return second, nil
		}
		return first, nil
	}
	for size := int64(minPage); size <= maxPage; size *= 2 {
		if second, err := readMeta(f, size); err == nil && second.pageSize == size {
			return second, nil
		}
	}
	return boltMeta{}, err
}

// checkFile returns what is wrong with the file's structure. The pages that it looks
// at, which are those that bbolt will, are in the cache then.
func checkFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return errors.New("it is empty")
	}
	m, err := findMeta(f)
	if err != nil {
		return err
	}
	if int64(m.pages)*m.pageSize > info.Size() {
		return fmt.Errorf("it is cut short: %d bytes are left of at least %d", info.Size(), int64(m.pages)*m.pageSize)
	}
	c := fileChecker{f: f, meta: m, seen: make([]uint64, m.pages/64+1)}
	return c.tree(m.root, nil, nil, 0)
}

type fileChecker struct {
	f    io.ReaderAt
	meta boltMeta
	seen []uint64 // a bit for each page
}

// ahead has the disk fetch all the pages that a page leads to, in place of one after
// the other.
func (c *fileChecker) ahead(ids []uint64) {
	f, ok := c.f.(*os.File)
	if !ok {
		return
	}
	for _, id := range ids {
		if id < c.meta.pages {
			prefetch(f, int64(id)*c.meta.pageSize, c.meta.pageSize)
		}
	}
}

// page is as much of a page as is needed: all but a single long value.
type page struct {
	name  string
	b     []byte
	total int // length with the value
}

// tree checks the pages from id down; their keys lie from low up to before high.
func (c *fileChecker) tree(id uint64, low, high []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d: the tree is too deep", id)
	}
	p, err := c.load(id)
	if err != nil {
		return err
	}
	ne := binary.NativeEndian
	count := int(ne.Uint16(p.b[10:]))
	if pageHeader+count*elemSize > len(p.b) {
		return p.damaged()
	}
	switch ne.Uint16(p.b[8:]) {
	case leafPage:
		return c.leaf(p, count, low, high, depth)
	case branchPage:
		return c.branch(p, count, low, high, depth)
	}
	return p.damaged()
}

func (p *page) damaged() error { return fmt.Errorf("%s is damaged", p.name) }

// load reads a page and marks it as seen.
func (c *fileChecker) load(id uint64) (*page, error) {
	p := &page{name: fmt.Sprintf("page %d", id), b: make([]byte, c.meta.pageSize)}
	if id < 2 || id >= c.meta.pages {
		return nil, fmt.Errorf("%s is outside of the file", p.name)
	}
	offset := int64(id) * c.meta.pageSize
	if _, err := c.f.ReadAt(p.b, offset); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	ne := binary.NativeEndian
	more := uint64(ne.Uint32(p.b[12:]))
	if ne.Uint64(p.b) != id || id+more >= c.meta.pages {
		return nil, p.damaged()
	}
	for i := id; i <= id+more; i++ {
		if c.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, fmt.Errorf("page %d is in use twice", i)
		}
		c.seen[i/64] |= 1 << (i % 64)
	}
	p.total = int(more+1) * len(p.b)
	if more > 0 && ne.Uint16(p.b[10:]) > 1 {
		p.b = make([]byte, p.total)
		if _, err := c.f.ReadAt(p.b, offset); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return p, nil
}

// key reads an element's key and checks that keys rise. size is of the value
// behind it.
func (p *page) key(at, pos, length, size int, low, previous, high []byte) ([]byte, error) {
	from, to := at+pos, at+pos+length
	if length == 0 || from < at || to < from || to > len(p.b) || size < 0 || to+size < to || to+size > p.total {
		return nil, p.damaged()
	}
	key := p.b[from:to]
	if bytes.Compare(key, low) < 0 || previous != nil && bytes.Compare(key, previous) <= 0 || high != nil && bytes.Compare(key, high) >= 0 {
		return nil, fmt.Errorf("%s: its keys are not in order", p.name)
	}
	return key, nil
}

func (c *fileChecker) leaf(p *page, count int, low, high []byte, depth int) error {
	ne := binary.NativeEndian
	var key []byte
	var buckets [][]byte
	var roots []uint64
	for i := range count {
		at := pageHeader + i*elemSize
		e := p.b[at:]
		pos, length, size := int(ne.Uint32(e[4:])), int(ne.Uint32(e[8:])), int(ne.Uint32(e[12:]))
		var err error
		if key, err = p.key(at, pos, length, size, low, key, high); err != nil {
			return err
		}
		if ne.Uint32(e)&bucketFlag == 0 {
			continue
		}
		from := at + pos + length
		if size < bucketHeader || from+size > len(p.b) {
			return p.damaged()
		}
		bucket := p.b[from : from+size]
		buckets = append(buckets, bucket)
		if root := ne.Uint64(bucket); root != 0 {
			roots = append(roots, root)
		}
	}
	c.ahead(roots)
	for _, bucket := range buckets {
		if err := c.bucket(p, bucket, depth); err != nil {
			return err
		}
	}
	return nil
}

// bucket checks what a bucket's value leads to: a tree of its own, or for a small
// one a page inside the value.
func (c *fileChecker) bucket(p *page, value []byte, depth int) error {
	ne := binary.NativeEndian
	if root := ne.Uint64(value); root != 0 {
		return c.tree(root, nil, nil, depth+1)
	}
	in := &page{name: p.name, b: value[bucketHeader:], total: len(value) - bucketHeader}
	if len(in.b) < pageHeader || ne.Uint16(in.b[8:]) != leafPage {
		return p.damaged()
	}
	count := int(ne.Uint16(in.b[10:]))
	if pageHeader+count*elemSize > len(in.b) || depth > maxDepth {
		return p.damaged()
	}
	return c.leaf(in, count, nil, nil, depth+1)
}

func (c *fileChecker) branch(p *page, count int, low, high []byte, depth int) error {
	ne := binary.NativeEndian
	if count == 0 {
		return p.damaged()
	}
	keys := make([][]byte, count+1)
	for i := range count {
		at := pageHeader + i*elemSize
		e := p.b[at:]
		var previous []byte
		if i > 0 {
			previous = keys[i-1]
		}
		var err error
		if keys[i], err = p.key(at, int(ne.Uint32(e)), int(ne.Uint32(e[4:])), 0, low, previous, high); err != nil {
			return err
		}
	}
	keys[count] = high
	children := make([]uint64, count)
	for i := range children {
		children[i] = ne.Uint64(p.b[pageHeader+i*elemSize+8:])
	}
	c.ahead(children)
	for i, child := range children {
		if err := c.tree(child, keys[i], keys[i+1], depth+1); err != nil {
			return err
		}
	}
	return nil
}
