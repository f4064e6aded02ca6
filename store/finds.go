package store

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/mcp-edge/edge-agent/record"
)

// finds are what a wreck holds. What the tree led to is current. Of what it did
// not lead to, the newest is kept: ids are never given to another name, positions
// never to another record, and numbers only rise.
type finds struct {
	about      *about
	format     uint32 // of about
	sources    map[uint32]found
	channels   map[uint32]found
	cursors    map[string]found
	gaps       map[string][]found // all versions
	mail       map[string]found
	checkpoint []byte
	position   uint64 // of checkpoint
	segments   []foundSegment
}

// found is a value.
type found struct {
	value   []byte
	now     bool // the tree led to it
	doubted bool // nobody knows whether it was the last
	others  bool // old ones were met
}

// foundSegment is where a segment's value is.
type foundSegment struct {
	first uint64
	count uint32 // 0: its header is damaged
	at    int64
	size  int64
	now   bool
}

func newFinds() finds {
	return finds{
		sources: make(map[uint32]found), channels: make(map[uint32]found), cursors: make(map[string]found),
		gaps: make(map[string][]found), mail: make(map[string]found),
	}
}

// bucketNames are those of the top level, besides the segments.
func bucketNames() []string {
	return []string{aboutBucket, channelBucket, sourceBucket, checkpointBucket, cursorBucket, gapBucket, mailboxBucket, ageBucket}
}

func isBucketName(key []byte) bool {
	return isSegment(key) || slices.Contains(bucketNames(), string(key))
}

// isNearly tells a damaged name from one that only a later version knows.
func isNearly(key []byte) bool {
	if isBucketName(key) {
		return false
	}
	if strings.HasPrefix(string(key), segmentPrefix) {
		return true
	}
	for _, name := range append(bucketNames(), segmentPrefix) {
		if (len(key) == len(name) || name == segmentPrefix && len(key) == len(segmentPrefix)+8) && differ(key, name) <= 2 {
			return true
		}
	}
	return false
}

// differ counts the bytes of name that key has otherwise.
func differ(key []byte, name string) (n int) {
	for i := range len(name) {
		if key[i] != name[i] {
			n++
		}
	}
	return n
}

// take takes an element of a bucket, or of some bucket that has to be found out.
// What has no good checksum is taken only where it must be.
func (w *wreck) take(bucket string, key []byte, v value) error {
	if string(key) == valueKey && (bucket == inEverything || isSegment([]byte(bucket))) {
		return w.takeSegment(bucket, v)
	}
	b, err := v.bytes()
	if err != nil {
		return err
	}
	b = bytes.Clone(b)
	taken := false
	for _, kind := range bucketNames() {
		if (bucket == inEverything || bucket == kind) && w.takeValue(kind, bytes.Clone(key), b, bucket == kind) {
			taken = true
			break
		}
	}
	if !taken {
		w.fault(bucket)
	}
	return nil
}

// takeValue tells whether the value is one of that bucket. named: it stands there.
func (w *wreck) takeValue(kind string, key, b []byte, named bool) bool {
	switch kind {
	case aboutBucket:
		return w.takeAbout(string(key), b)
	case checkpointBucket:
		return string(key) == checkpointKey && w.takeCheckpoint(b)
	case mailboxBucket:
		return w.takeMail(string(key), b, named)
	case ageBucket:
		return string(key) == ageKey // left behind: the records count as new then
	}
	// Where its bucket is not known, a value must prove by its sum what it is, or by
	// its form if the file has no sums.
	plain, ok := unsum(kind, key, b, w.unsummed())
	if !ok {
		return false
	}
	switch kind {
	case sourceBucket:
		_, ok = decodeSource(plain)
		return ok && w.takeName(w.sources, key, plain)
	case channelBucket:
		_, ok = decodeChannel(plain)
		return ok && w.takeName(w.channels, key, plain)
	case cursorBucket:
		return len(plain) == savedSize && w.takeCursor(string(key), plain)
	case gapBucket:
		if _, ok := decodeMissing(plain, maxID); !ok {
			return false
		}
		w.gaps[string(key)] = append(w.gaps[string(key)], found{value: plain, now: w.now})
	}
	return true
}

const maxID = 1 << 31

// unsummed tells whether the file may have values without sums.
func (w *wreck) unsummed() bool { return w.about == nil || !w.about.sums }

// takeAbout prefers what is current, then the newest generation.
func (w *wreck) takeAbout(key string, b []byte) bool {
	switch key {
	case stateKey:
		a, version, ok := decodeAbout(b)
		switch {
		case !ok:
			return false
		case w.now:
			w.about, w.format = &a, version
		case w.about == nil || !w.about.sums || a.generation > w.about.generation:
			w.about = &a
		}
		if w.lacks(aboutBucket) {
			w.format = max(w.format, version)
		}
		return true
	case epochKey, formatKey:
		if w.about == nil && w.now && key == epochKey && len(b) == 8 {
			w.about = &about{epoch: record.Epoch(binary.LittleEndian.Uint64(b))}
		}
		return len(b) == 8 && key == epochKey || len(b) == 4 && key == formatKey
	}
	return false
}

func (w *wreck) takeCheckpoint(b []byte) bool {
	none := func(uint32, uint64) {}
	position, ok := decodeCheckpoint(b, none, none)
	if ok && (w.checkpoint == nil || position > w.position) {
		w.checkpoint, w.position = b, position
	}
	return ok
}

func (w *wreck) takeName(names map[uint32]found, key, b []byte) bool {
	if len(key) != 4 {
		return false
	}
	id := binary.BigEndian.Uint32(key)
	old, known := names[id]
	switch {
	case id == 0 || id >= maxID:
		return false
	case !known:
		names[id] = found{value: b, now: w.now}
	case !bytes.Equal(old.value, b) && !old.now:
		old.doubted = true // an id of a commit that never came to be
		names[id] = old
	}
	return true
}

// takeCursor prefers what is current, then what was saved last.
func (w *wreck) takeCursor(name string, b []byte) bool {
	le := binary.LittleEndian
	old, known := w.cursors[name]
	switch {
	case le.Uint64(b) > le.Uint64(b[8:]):
		return false
	case !known, !old.now && le.Uint64(b[8:]) > le.Uint64(old.value[8:]),
		!old.now && le.Uint64(b[8:]) == le.Uint64(old.value[8:]) && le.Uint64(b) < le.Uint64(old.value):
		w.cursors[name] = found{value: b, now: w.now}
	}
	return true
}

// takeMail: which of several letters was the last nobody can tell, if none is
// current, and an old one must not be taken for it.
func (w *wreck) takeMail(key string, b []byte, named bool) bool {
	good := len(b) >= sumSize && binary.LittleEndian.Uint32(b) == sumMail(key, b[sumSize:])
	if !good && !named {
		return false
	}
	old, known := w.mail[key]
	switch {
	case !known:
		w.mail[key] = found{value: b, now: w.now, doubted: !w.now}
	case !bytes.Equal(old.value, b):
		old.doubted, old.others = old.doubted || !old.now, true
		w.mail[key] = old
	}
	return true
}

// takeSegment notes where a segment is.
func (w *wreck) takeSegment(bucket string, v value) error {
	s := foundSegment{at: v.p.at + v.at, size: v.size, now: w.now}
	var b [headerSize]byte
	if v.size >= headerSize && v.size < maxSegmentBytes {
		if ok, err := w.readAt(b[:], s.at); err != nil {
			return err
		} else if ok {
			if h, ok := parseHeaderOf(b[:], v.size); ok {
				s.first, s.count = h.first, h.count
			}
		}
	}
	switch {
	case s.count > 0:
	case w.now && isSegment([]byte(bucket)):
		s.first = segmentFirst([]byte(bucket))
	default:
		return nil
	}
	w.segments = append(w.segments, s)
	return nil
}
