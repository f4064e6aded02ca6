package mcp

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mcp-edge/edge-agent/record"
)

// Bounds on what a payload may say; a peer that goes beyond them gets ERROR.
const (
	MaxChannels = 1024  // that one peer publishes on, and positions in one ACK
	MaxBatch    = 65536 // records in one PUBLISH
	maxVersions = 16
	maxToken    = 16 << 10
	maxText     = 1 << 10 // software, reason, content type
)

// ErrPayload marks a payload that can't be understood or breaks a bound.
var ErrPayload = errors.New("bad payload")

var errMalformed = fmt.Errorf("%w: malformed protobuf", ErrPayload)

// field is one protobuf field; number or bytes holds its value.
type field struct {
	id     protowire.Number
	kind   protowire.Type
	number uint64
	bytes  []byte
}

// nextField takes the first field off b. Groups, which proto3 does not have,
// are malformed: skipping them needs recursion as deep as the sender likes.
func nextField(b []byte) (f field, rest []byte, err error) {
	id, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return field{}, nil, errMalformed
	}
	f.id, f.kind = id, kind
	b = b[n:]
	switch kind {
	case protowire.VarintType:
		f.number, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	case protowire.Fixed64Type:
		f.number, n = protowire.ConsumeFixed64(b)
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(b)
		f.number = uint64(v)
	default:
		n = -1
	}
	if n < 0 {
		return field{}, nil, errMalformed
	}
	return f, b[n:], nil
}

// eachField calls set for each field of b. A field of an unexpected wire type
// is for set to skip, as protobuf demands.
func eachField(b []byte, set func(f field) error) error {
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return err
		}
		if err := set(f); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func (f field) isBytes(id protowire.Number) bool { return f.id == id && f.kind == protowire.BytesType }

func (f field) isVarint(id protowire.Number) bool {
	return f.id == id && f.kind == protowire.VarintType
}

func (f field) isFixed64(id protowire.Number) bool {
	return f.id == id && f.kind == protowire.Fixed64Type
}

// text is the field as a string of at most limit bytes.
func (f field) text(what string, limit int) (string, error) {
	if len(f.bytes) > limit {
		return "", fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrPayload, what, len(f.bytes), limit)
	}
	if !utf8.Valid(f.bytes) {
		return "", fmt.Errorf("%w: %s is not UTF-8", ErrPayload, what)
	}
	return string(f.bytes), nil
}

// uint32 cuts as protobuf does.
func (f field) uint32() uint32 { return uint32(f.number) }

func checkName(what, name string) error {
	if err := record.CheckName(name); err != nil {
		return fmt.Errorf("%w: %s %w", ErrPayload, what, err)
	}
	return nil
}

// eachVarint calls add for each number of a repeated field, packed or not.
func (f field) eachVarint(add func(v uint64) error) error {
	if f.kind == protowire.VarintType {
		return add(f.number)
	}
	for b := f.bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return errMalformed
		}
		if err := add(v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func appendVarint(b []byte, id protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, id, protowire.VarintType), v)
}

func appendBool(b []byte, id protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendVarint(b, id, 1)
}

func appendFixed64(b []byte, id protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, id, protowire.Fixed64Type), v)
}

func appendText(b []byte, id protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, id, protowire.BytesType), s)
}

func appendBytes(b []byte, id protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, id, protowire.BytesType), v)
}
