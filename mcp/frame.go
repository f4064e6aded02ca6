package mcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/mcp-edge/edge-agent/transport"
)

// Versions of the frame. They differ in the checksum and in the largest
// payload; commands and payloads are the same in both.
const (
	Version1 = 1 // CRC-8, for small devices
	Version2 = 2 // CRC-32C
)

// Sizes in bytes.
const (
	MaxPayloadV1         = 1 << 10  // of version 1
	MaxPayloadV2         = 16 << 20 // of version 2, whatever the peers agree on
	DefaultPayload       = 1 << 20  // what a peer takes in version 2 unless it says otherwise
	DefaultPayloadSerial = 4 << 10  // the same on a serial line

	magic       = 0x4D43 // "MC"
	headerSize  = 8
	checksumV1  = 1
	checksumV2  = 4
	maxOverhead = headerSize + checksumV2
)

// Command says what a frame's payload is. The numbers are frozen.
type Command uint8

// The commands. Heartbeats have an empty payload.
const (
	CommandHeartbeat    Command = 0x01
	CommandHeartbeatAck Command = 0x02
	CommandHello        Command = 0x03
	CommandWelcome      Command = 0x04
	CommandPublish      Command = 0x05
	CommandAck          Command = 0x06
	CommandRequest      Command = 0x07
	CommandResponse     Command = 0x08
	CommandClose        Command = 0x09
	CommandError        Command = 0x0A
)

func (c Command) String() string {
	switch c {
	case CommandHeartbeat:
		return "HEARTBEAT"
	case CommandHeartbeatAck:
		return "HEARTBEAT_ACK"
	case CommandHello:
		return "HELLO"
	case CommandWelcome:
		return "WELCOME"
	case CommandPublish:
		return "PUBLISH"
	case CommandAck:
		return "ACK"
	case CommandRequest:
		return "REQUEST"
	case CommandResponse:
		return "RESPONSE"
	case CommandClose:
		return "CLOSE"
	case CommandError:
		return "ERROR"
	}
	return fmt.Sprintf("command 0x%02X", uint8(c))
}

// Frame is one message on the wire.
type Frame struct {
	Version uint8
	Command Command
	Payload []byte
}

// ErrVersion marks a frame in a version that this package does not speak. It
// is of class transport.ErrFrame too.
var ErrVersion = errors.New("unknown protocol version")

// Ready-made, so that a flood of bad frames costs no allocations.
var (
	errMagic    = fmt.Errorf("%w: it does not start with 4D 43", transport.ErrFrame)
	errVersion  = fmt.Errorf("%w: %w", transport.ErrFrame, ErrVersion)
	errLength   = fmt.Errorf("%w: its length is not what the header says", transport.ErrFrame)
	errChecksum = fmt.Errorf("%w: wrong checksum", transport.ErrFrame)
	errTooLarge = fmt.Errorf("%w: the header announces more than is taken here", transport.ErrTooLarge)
)

// AppendFrame appends a frame to dst and returns it. It fails, leaving dst as
// it was, on an unknown version (ErrVersion) and on a payload beyond the
// version's limit (transport.ErrTooLarge). It does not allocate when dst has
// room for len(payload)+12 bytes.
func AppendFrame(dst []byte, version uint8, c Command, payload []byte) ([]byte, error) {
	start := len(dst)
	dst = beginFrame(slices.Grow(dst, len(payload)+maxOverhead), version, c)
	return endFrame(append(dst, payload...), start)
}

// beginFrame appends a header whose length endFrame fills in, so that a
// payload can be written in its place instead of being copied there.
func beginFrame(dst []byte, version uint8, c Command) []byte {
	return binary.BigEndian.AppendUint64(dst, magic<<48|uint64(version)<<40|uint64(c)<<32)
}

// endFrame completes the frame that begins at start.
func endFrame(dst []byte, start int) ([]byte, error) {
	frame := dst[start:]
	size, version := len(frame)-headerSize, frame[2]
	if limit := payloadLimit(version); size > limit {
		if limit < 0 {
			return dst[:start], errVersion
		}
		return dst[:start], errTooLarge
	}
	// The header is stored whole: the checksum reads it whole and at once, and
	// would have to wait for parts to be put together.
	header := magic<<48 | uint64(version)<<40 | uint64(frame[3])<<32 | uint64(size)
	binary.BigEndian.PutUint64(frame, header)
	if version == Version1 {
		return append(dst, crc8(frame)), nil
	}
	return binary.BigEndian.AppendUint32(dst, crc32c(frame)), nil
}

// ParseFrame reads the one frame that b consists of. Payload aliases b. Errors
// are of class transport.ErrFrame, and of ErrVersion where the version is the
// reason. It does not allocate.
func ParseFrame(b []byte) (Frame, error) {
	total, err := frameSize(b, MaxPayloadV2)
	switch {
	case err != nil:
		return Frame{}, err
	case total != len(b) || total == 0:
		return Frame{}, errLength
	case !checksumHolds(b):
		return Frame{}, errChecksum
	}
	end := total - checksumV2
	if b[2] == Version1 {
		end = total - checksumV1
	}
	return Frame{Version: b[2], Command: Command(b[3]), Payload: b[headerSize:end:end]}, nil
}

// frameSize tells from its header how long the frame at the front of b is; 0
// means that more bytes are needed to tell. It complains about the first byte
// that can't be right, however few there are. maxPayload is for version 2.
func frameSize(b []byte, maxPayload int) (int, error) {
	if len(b) > 0 && b[0] != magic>>8 || len(b) > 1 && b[1] != magic&0xFF {
		return 0, errMagic
	}
	if len(b) <= 2 {
		return 0, nil
	}
	limit, checksum := payloadLimit(b[2]), checksumV2
	switch {
	case limit < 0:
		return 0, errVersion
	case b[2] == Version1:
		checksum = checksumV1
	default:
		limit = min(limit, maxPayload)
	}
	if len(b) < headerSize {
		return 0, nil
	}
	size := binary.BigEndian.Uint32(b[4:])
	if uint64(size) > uint64(limit) {
		return 0, errTooLarge
	}
	return headerSize + int(size) + checksum, nil
}

// payloadLimit is negative for a version that does not exist.
func payloadLimit(version uint8) int {
	switch version {
	case Version1:
		return MaxPayloadV1
	case Version2:
		return MaxPayloadV2
	}
	return -1
}

// checksumHolds wants a whole frame of a known version.
func checksumHolds(frame []byte) bool {
	if frame[2] == Version1 {
		end := len(frame) - checksumV1
		return crc8(frame[:end]) == frame[end]
	}
	end := len(frame) - checksumV2
	return crc32c(frame[:end]) == binary.BigEndian.Uint32(frame[end:])
}

// castagnoli is looked up once: doing so for each frame takes a tenth of its time.
var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a table that nothing changes

func crc32c(b []byte) uint32 { return crc32.Update(0, castagnoli, b) }

// crc8 is the packet error code of SMBus (System Management Bus Specification
// 3.2, section 6.4.1.2): polynomial 0x07, initial value 0, neither reflected
// nor inverted.
func crc8(b []byte) byte {
	var crc byte
	for _, c := range b {
		crc = crc8Table[crc^c]
	}
	return crc
}

// crc8Table is a string because a string can be a constant.
const crc8Table = "" +
	"\x00\x07\x0e\x09\x1c\x1b\x12\x15\x38\x3f\x36\x31\x24\x23\x2a\x2d" +
	"\x70\x77\x7e\x79\x6c\x6b\x62\x65\x48\x4f\x46\x41\x54\x53\x5a\x5d" +
	"\xe0\xe7\xee\xe9\xfc\xfb\xf2\xf5\xd8\xdf\xd6\xd1\xc4\xc3\xca\xcd" +
	"\x90\x97\x9e\x99\x8c\x8b\x82\x85\xa8\xaf\xa6\xa1\xb4\xb3\xba\xbd" +
	"\xc7\xc0\xc9\xce\xdb\xdc\xd5\xd2\xff\xf8\xf1\xf6\xe3\xe4\xed\xea" +
	"\xb7\xb0\xb9\xbe\xab\xac\xa5\xa2\x8f\x88\x81\x86\x93\x94\x9d\x9a" +
	"\x27\x20\x29\x2e\x3b\x3c\x35\x32\x1f\x18\x11\x16\x03\x04\x0d\x0a" +
	"\x57\x50\x59\x5e\x4b\x4c\x45\x42\x6f\x68\x61\x66\x73\x74\x7d\x7a" +
	"\x89\x8e\x87\x80\x95\x92\x9b\x9c\xb1\xb6\xbf\xb8\xad\xaa\xa3\xa4" +
	"\xf9\xfe\xf7\xf0\xe5\xe2\xeb\xec\xc1\xc6\xcf\xc8\xdd\xda\xd3\xd4" +
	"\x69\x6e\x67\x60\x75\x72\x7b\x7c\x51\x56\x5f\x58\x4d\x4a\x43\x44" +
	"\x19\x1e\x17\x10\x05\x02\x0b\x0c\x21\x26\x2f\x28\x3d\x3a\x33\x34" +
	"\x4e\x49\x40\x47\x52\x55\x5c\x5b\x76\x71\x78\x7f\x6a\x6d\x64\x63" +
	"\x3e\x39\x30\x37\x22\x25\x2c\x2b\x06\x01\x08\x0f\x1a\x1d\x14\x13" +
	"\xae\xa9\xa0\xa7\xb2\xb5\xbc\xbb\x96\x91\x98\x9f\x8a\x8d\x84\x83" +
	"\xde\xd9\xd0\xd7\xc2\xc5\xcc\xcb\xe6\xe1\xe8\xef\xfa\xfd\xf4\xf3"
