package mcp

import (
	"bytes"
	"sync/atomic"
	"time"
)

// DefaultSilence is the pause inside a frame after which the rest of it is no
// longer expected. USB adapters pause up to 16 ms inside a frame; the rest is
// for a busy sender.
const DefaultSilence = 100 * time.Millisecond

// SerialFramer finds frames on a line that loses, damages and invents bytes.
// It never fails; what is no frame is skipped and counted.
//
// A header that breaks a limit is a false magic at once. After a wrong
// checksum, or a silence in the middle of a frame, the search goes on one byte
// behind the magic that was false: bytes that could begin a good frame are
// never thrown away. What is found inside a frame that failed may be that
// frame's data rather than a message, so a REQUEST, an ACK and a CLOSE are
// ignored there: the first two would act, the third would end, on a copy.
//
// The time is linear in the bytes: each false header costs at most one checksum
// over the largest frame.
//
// It is a transport.Framer for one Conn. Stats may be called at any time.
type SerialFramer struct {
	maxPayload int
	silence    time.Duration
	suspect    int // that many of the bytes not yet consumed lie inside a frame that failed

	skipped, bad, ignored atomic.Uint64
}

// ResyncStats counts what a SerialFramer had to skip since it was made.
type ResyncStats struct {
	SkippedBytes uint64 // that belonged to no good frame
	BadFrames    uint64 // a plausible header, then a wrong checksum or silence
	Ignored      uint64 // REQUEST, ACK and CLOSE inside a bad frame
}

// NewSerialFramer takes the largest payload accepted in version 2, in bytes,
// and the longest pause inside a frame; 0 means DefaultPayloadSerial and
// DefaultSilence.
func NewSerialFramer(maxPayload int, silence time.Duration) *SerialFramer {
	if maxPayload <= 0 {
		maxPayload = DefaultPayloadSerial
	}
	if silence <= 0 {
		silence = DefaultSilence
	}
	return &SerialFramer{maxPayload: min(max(maxPayload, MaxPayloadV1), MaxPayloadV2), silence: silence}
}

// Stats counts since the framer was made.
func (f *SerialFramer) Stats() ResyncStats {
	return ResyncStats{SkippedBytes: f.skipped.Load(), BadFrames: f.bad.Load(), Ignored: f.ignored.Load()}
}

// Idle implements transport.Framer.
func (f *SerialFramer) Idle() time.Duration { return f.silence }

// Max implements transport.Framer.
func (f *SerialFramer) Max() int { return f.maxPayload + maxOverhead }

// Split implements transport.Framer.
func (f *SerialFramer) Split(buf []byte, idle bool) (int, []byte, error) {
	skipped := 0
	msg, end := []byte(nil), 0
	for {
		begin := end + findMagic(buf[end:])
		skipped += begin - end
		rest := buf[begin:]
		total, err := frameSize(rest, f.maxPayload)
		whole := err == nil && total > 0 && len(rest) >= total
		switch {
		case len(rest) == 0:
			end = begin
		case err == nil && !whole && !idle:
			end = begin // the rest is still on its way
		case whole && checksumHolds(rest[:total]):
			end = begin + total
			if begin < f.suspect && ignoredInside(Command(rest[3])) {
				f.ignored.Add(1)
				continue
			}
			msg = rest[:total:total]
		default:
			if whole || total > 0 {
				f.bad.Add(1)
				f.suspect = max(f.suspect, begin+min(total, len(rest)))
			}
			skipped++
			end = begin + 1
			continue
		}
		f.skipped.Add(uint64(skipped))
		f.suspect = max(f.suspect-end, 0)
		return end, msg, nil
	}
}

// findMagic returns where a magic begins in b, or may begin at its end;
// len(b) if nowhere.
func findMagic(b []byte) int {
	at := 0
	for {
		i := bytes.IndexByte(b[at:], magic>>8)
		if i < 0 {
			return len(b)
		}
		at += i
		if at+1 == len(b) || b[at+1] == magic&0xFF {
			return at
		}
		at++
	}
}

func ignoredInside(c Command) bool {
	return c == CommandRequest || c == CommandAck || c == CommandClose
}
