package modbus

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// The header of Modbus TCP: transaction, protocol (always 0), length of what
// follows, unit (Modbus Messaging on TCP/IP V1.0b, section 3.1.3).
const (
	mbapHeader = 7
	maxMBAP    = mbapHeader + MaxPDU
)

// AppendMBAP appends the Modbus TCP frame of a PDU to b.
func AppendMBAP(b []byte, transaction uint16, unit byte, pdu []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, transaction)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(1+len(pdu)))
	b = append(b, unit)
	return append(b, pdu...)
}

// mbap finds Modbus TCP frames, whose length stands in their header. A header
// that can't be one leaves no way to find the next: the connection is given up.
type mbap struct {
	transaction uint16
	adu         []byte // the request, reused
}

var _ framing = (*mbap)(nil)

func (f *mbap) opened(transport.Info) {}

func (f *mbap) silence() time.Duration { return 0 }

func (f *mbap) request(unit byte, r Request) []byte {
	f.transaction++
	f.adu = AppendMBAP(f.adu[:0], f.transaction, unit, r.pdu)
	return f.adu
}

func (f *mbap) reply(msg []byte) (unit byte, pdu []byte, err error) {
	if len(msg) <= mbapHeader {
		return 0, nil, wrongLength
	}
	if binary.BigEndian.Uint16(msg) != f.transaction {
		return 0, nil, wrongTransaction
	}
	return msg[6], msg[mbapHeader:], nil
}

func (f *mbap) numbered() bool      { return true }
func (f *mbap) unfinished() bool    { return false }
func (f *mbap) lastByte() time.Time { return time.Time{} }

// Idle is 0: the length ends a frame, and nothing else.
func (f *mbap) Idle() time.Duration { return 0 }

// Max is the longest Modbus TCP frame.
func (f *mbap) Max() int { return maxMBAP }

// Split implements transport.Framer.
func (f *mbap) Split(buf []byte, _ bool) (advance int, msg []byte, err error) {
	if len(buf) < mbapHeader {
		return 0, nil, nil
	}
	protocol, length := binary.BigEndian.Uint16(buf[2:]), int(binary.BigEndian.Uint16(buf[4:]))
	if protocol != 0 || length < 2 || length > 1+MaxPDU {
		return len(buf), nil, fmt.Errorf("%w: modbus: no Modbus TCP header (protocol %d, length %d)", transport.ErrFrame, protocol, length)
	}
	size := mbapHeader - 1 + length
	if len(buf) < size {
		return 0, nil, nil
	}
	return size, buf[:size], nil
}
