package store

import (
	"encoding/binary"

	bolt "go.etcd.io/bbolt"
)

// Names, places of cursors and gaps have no checksum of their own, so each value
// in their buckets is followed by a CRC-32C of its bucket's name, key and value: one
// flipped bit would give records to another device, or let a cursor pass over some.
// Files of before there were sums are given them at the next Open.

// summed are the buckets whose values have sums.
func summed() []string { return []string{channelBucket, sourceBucket, cursorBucket, gapBucket} }

func sumOf(bucket string, key, value []byte) uint32 {
	return checksum(append(append(append(make([]byte, 0, len(bucket)+len(key)+len(value)), bucket...), key...), value...))
}

// sum returns value with its sum behind it.
func sum(bucket string, key, value []byte) []byte {
	b := append(make([]byte, 0, len(value)+sumSize), value...)
	return binary.LittleEndian.AppendUint32(b, sumOf(bucket, key, value))
}

func putSummed(b *bolt.Bucket, bucket string, key, value []byte) error {
	return b.Put(key, sum(bucket, key, value))
}

// unsum takes the sum off a value, and tells whether it is right. optional: a value
// without one is taken as it is.
func unsum(bucket string, key, b []byte, optional bool) (value []byte, ok bool) {
	if n := len(b) - sumSize; n >= 0 && binary.LittleEndian.Uint32(b[n:]) == sumOf(bucket, key, b[:n]) {
		return b[:n:n], true
	}
	return b, optional
}

// addSums gives sums to the values of a file that has none.
func addSums(tx *bolt.Tx) error {
	for _, name := range summed() {
		b := tx.Bucket([]byte(name))
		values := make(map[string][]byte)
		_ = b.ForEach(func(k, v []byte) error {
			values[string(k)] = sum(name, k, v)
			return nil
		})
		for k, v := range values {
			if err := b.Put([]byte(k), v); err != nil {
				return err
			}
		}
	}
	return nil
}
