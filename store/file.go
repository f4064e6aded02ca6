package store

import (
	"bytes"
	"encoding/binary"

	bolt "go.etcd.io/bbolt"
)

// format is the version of the file's layout. A file with a higher one was
// written by a newer program and is left alone.
const format = 1

// Names of the file's buckets; see the package's documentation.
const (
	aboutBucket      = "about"
	channelBucket    = "dict.channel"
	sourceBucket     = "dict.source"
	segmentPrefix    = "log."
	checkpointBucket = "now.checkpoint"
	cursorBucket     = "now.cursor"
	gapBucket        = "now.gap"
	mailboxBucket    = "now.mailbox"
	ageBucket        = "now.age"
)

// Keys of single values.
const (
	formatKey     = "format"
	epochKey      = "epoch"
	stateKey      = "state"
	checkpointKey = "numbers"
	ageKey        = "stamps"
	valueKey      = "records" // of a segment
)

// segmentName is a segment's bucket; names sort by position.
func segmentName(first uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(segmentPrefix), first)
}

// segmentCursor goes through the segments of a transaction in order.
type segmentCursor struct {
	tx     *bolt.Tx
	cursor *bolt.Cursor
	key    []byte // nil: past the end
	cached []byte // value of key
}

// findSegment stands at the segment that holds pos, if there is one, or at one
// before it, or else at the first one behind it.
func findSegment(tx *bolt.Tx, pos uint64) *segmentCursor {
	c := &segmentCursor{tx: tx, cursor: tx.Cursor()}
	name := segmentName(pos)
	key, _ := c.cursor.Seek(name)
	if !bytes.Equal(key, name) {
		if before, _ := c.cursor.Prev(); isSegment(before) {
			key = before
		} else {
			key, _ = c.cursor.Seek(name)
		}
	}
	c.set(key)
	return c
}

func isSegment(key []byte) bool {
	return len(key) == len(segmentPrefix)+8 && string(key[:len(segmentPrefix)]) == segmentPrefix
}

func (c *segmentCursor) set(key []byte) {
	c.key, c.cached = nil, nil
	if isSegment(key) {
		c.key = key
	}
}

func (c *segmentCursor) found() bool { return c.key != nil }

func (c *segmentCursor) next() {
	key, _ := c.cursor.Next()
	c.set(key)
}

func (c *segmentCursor) first() uint64 { return segmentFirst(c.key) }

func segmentFirst(name []byte) uint64 { return binary.BigEndian.Uint64(name[len(segmentPrefix):]) }

// value is valid as long as the transaction.
func (c *segmentCursor) value() []byte {
	if c.cached == nil {
		if b := c.tx.Bucket(c.key); b != nil {
			c.cached = b.Get([]byte(valueKey))
		}
	}
	return c.cached
}

// walk starts at the segment's first record.
func (c *segmentCursor) walk(known uint32) walker {
	value := c.value()
	if h, ok := parseHeader(value); ok {
		return walkHeader(&h, value, known)
	}
	// The next segment's name tells how many records there were.
	next := uint64(0)
	after := c.tx.Cursor()
	after.Seek(c.key)
	if key, _ := after.Next(); isSegment(key) {
		next = segmentFirst(key)
	}
	return walkDamaged(value, c.first(), next, known)
}

// putSegment stores a segment's value, which must not change until the
// transaction has ended.
func putSegment(tx *bolt.Tx, first uint64, value []byte) error {
	b, err := tx.CreateBucket(segmentName(first))
	if err != nil {
		return err
	}
	return b.Put([]byte(valueKey), value)
}
