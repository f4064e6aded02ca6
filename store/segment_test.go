package store

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/record"
)

// built is a segment of some records.
func built(first uint64, bodies ...string) []byte {
	b := make([]byte, headerSize)
	h := header{first: first, oldest: 1}
	for i, body := range bodies {
		b = appendRecord(b, &envelope{source: uint32(1 + i%3), seq: uint64(i + 1), time: int64(i), part: uint32(i % 2), body: []byte(body)})
		h.count++
	}
	h.records = uint32(len(b) - headerSize)
	b = appendMarks(b, []mark{{1, 1}, {300, 1 << 40}})
	h.marks = uint32(len(b) - headerSize - int(h.records))
	h.marksum = checksum(b[headerSize+h.records:])
	h.put(b)
	return b
}

func walkAll(value []byte) (good []uint64, lost uint64) {
	const known = 4
	w := walkDamaged(value, 1, 0, known)
	if h, ok := parseHeader(value); ok {
		w = walkHeader(&h, value, known)
	}
	var e envelope
	for {
		what, n := w.next(&e)
		switch what {
		case stepEnd:
			return good, lost
		case stepRecord:
			good = append(good, e.seq)
		case stepDamaged:
			lost += n
		}
	}
}

// Wherever one byte of a segment's records is damaged, one record is lost, the
// others are read, and each keeps its position.
func TestDamageCostsTheRecordThatItHits(t *testing.T) {
	whole := built(1, "a", "some more", string(make([]byte, 300)), "", "the end")
	h, _ := parseHeader(whole)
	for at := headerSize; at < headerSize+int(h.records); at++ {
		b := slices.Clone(whole)
		b[at] ^= 0x41
		if good, lost := walkAll(b); len(good) != 4 || lost != 1 {
			t.Fatalf("byte %d: %d read, %d lost", at, len(good), lost)
		}
	}
}

func TestASegmentWithADamagedHeaderIsStillRead(t *testing.T) {
	b := built(1, "a", "b", "c")
	b[9] ^= 1
	if good, _ := walkAll(b); len(good) != 3 {
		t.Errorf("read %v", good)
	}
}

func FuzzASegment(f *testing.F) {
	f.Add([]byte{})
	f.Add(built(1, "a", "bb", string(make([]byte, 200))))
	f.Add(built(7, "")[:headerSize+3])
	f.Fuzz(func(t *testing.T, b []byte) {
		good, _ := walkAll(b)
		if len(good) > len(b) {
			t.Fatalf("%d records out of %d bytes", len(good), len(b))
		}
		parseMarks(b, func(mark) {})
		if list, ok := decodeMissing(b, 10); ok {
			if again, ok := decodeMissing(encodeMissing(list), 10); !ok || len(again) != len(list) {
				t.Fatalf("%+v reads back as %+v", list, again)
			}
		}
		decodeCheckpoint(b, func(uint32, uint64) {}, func(uint32, uint64) {})
		decodeSource(b)
		decodeChannel(b)
	})
}

func FuzzTheCheckOfAFile(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(dir, Config{MaxSize: 1 << 20}, silent())
	if err != nil {
		f.Fatal(err)
	}
	s.Close()
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:16<<10])
	f.Add(binary.NativeEndian.AppendUint32(make([]byte, 16), boltMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		_ = checkFile(file)
	})
}

func TestAnEnvelopeReadsBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := envelope{
			source: rapid.Uint32().Draw(t, "source"), seq: rapid.Uint64().Draw(t, "seq"), time: rapid.Int64().Draw(t, "time"),
			part: rapid.Uint32().Draw(t, "part"), gap: rapid.Bool().Draw(t, "gap"), body: rapid.SliceOf(rapid.Byte()).Draw(t, "body"),
		}
		b := appendRecord(nil, &want)
		if len(b) > len(want.body)+maxEnvelope {
			t.Fatalf("%d bytes for %d", len(b), len(want.body))
		}
		var got envelope
		if size := got.take(b); size != len(b) || got.source != want.source || got.seq != want.seq || got.time != want.time ||
			got.part != want.part || got.gap != want.gap || !bytes.Equal(got.body, want.body) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}

func TestAGapReadsBackAsItWasWritten(t *testing.T) {
	want := record.Gap{From: 1, To: 1 << 60, Count: 9, Reason: record.GapOverload, First: time.Unix(1, 2).UTC(), Last: time.Unix(3, 4).UTC()}
	if got, ok := parseGap(appendGap(nil, &want)); !ok || got != want {
		t.Errorf("%+v", got)
	}
}
