package mcp

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mcp-edge/edge-agent/record"
)

// Position of a channel: every record up to Number is safe on the receiver's
// disk. ResendFrom is 0, or the first number that is missing, so that a PUBLISH
// behind it did not fit; up to ResendTo is missing too. ResendTo 0 means that
// all is to be sent again from there on. A channel with several holes has
// several Positions in an ACK.
type Position struct {
	Channel    string
	Number     uint64
	ResendFrom uint64
	ResendTo   uint64
}

const (
	positionChannel  = 1
	positionNumber   = 2
	positionResend   = 3
	positionResendTo = 4
)

// AppendAck appends the payload of an ACK to b.
func AppendAck(b []byte, positions []Position) []byte {
	return appendPositions(b, 1, positions)
}

// ParseAck appends the positions in the payload of an ACK to dst. Errors are of
// class ErrPayload.
func ParseAck(dst []Position, b []byte) ([]Position, error) {
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return nil, err
		}
		if f.isBytes(1) {
			if dst, err = addPosition(dst, f.bytes); err != nil {
				return nil, err
			}
		}
		b = rest
	}
	return dst, nil
}

func appendPositions(b []byte, id protowire.Number, positions []Position) []byte {
	for i := range positions {
		b = protowire.AppendTag(b, id, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(positions[i].size()))
		b = positions[i].append(b)
	}
	return b
}

func (p *Position) append(b []byte) []byte {
	b = appendText(b, positionChannel, p.Channel)
	b = appendVarint(b, positionNumber, p.Number)
	b = appendVarint(b, positionResend, p.ResendFrom)
	return appendVarint(b, positionResendTo, p.ResendTo)
}

// size is the length of what append adds; the tags take a byte each.
func (p *Position) size() int {
	n := 0
	if p.Channel != "" {
		n += 1 + protowire.SizeBytes(len(p.Channel))
	}
	for _, v := range [...]uint64{p.Number, p.ResendFrom, p.ResendTo} {
		if v != 0 {
			n += 1 + protowire.SizeVarint(v)
		}
	}
	return n
}

func addPosition(dst []Position, b []byte) ([]Position, error) {
	if len(dst) == MaxChannels {
		return nil, fmt.Errorf("%w: more than %d positions", ErrPayload, MaxChannels)
	}
	var p Position
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return nil, err
		}
		switch {
		case f.isBytes(positionChannel):
			if p.Channel, err = f.text("a channel's name", record.MaxName); err != nil {
				return nil, err
			}
		case f.isVarint(positionNumber):
			p.Number = f.number
		case f.isVarint(positionResend):
			p.ResendFrom = f.number
		case f.isVarint(positionResendTo):
			p.ResendTo = f.number
		}
		b = rest
	}
	return append(dst, p), checkName("a channel's name", p.Channel)
}
