package modbus

import (
	"bytes"
	"fmt"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// An RTU frame is the unit, the PDU and a CRC (Modbus over Serial Line V1.02,
// section 2.5.1).
const (
	minRTU = 4
	maxRTU = 1 + MaxPDU + 2
)

// CRC is CRC-16/MODBUS: polynomial 0x8005 reflected, initial value 0xFFFF
// (Modbus over Serial Line V1.02, section 6.2.2). It is sent low byte first.
func CRC(b []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xA001
			} else {
				crc >>= 1
			}
		}
	}
	return crc
}

// AppendRTU appends the RTU frame of a PDU to b.
func AppendRTU(b []byte, unit byte, pdu []byte) []byte {
	start := len(b)
	b = append(b, unit)
	b = append(b, pdu...)
	crc := CRC(b[start:])
	return append(b, byte(crc), byte(crc>>8))
}

// rtu finds replies in the bytes of a line. A reply ends where its header says,
// if its CRC agrees; silence only resynchronises, because a USB adapter pauses
// up to 16 ms inside a frame. Whatever could still become the expected reply is
// kept even then, as a gateway on TCP pauses for longer.
type rtu struct {
	charTime time.Duration

	unit byte   // who is asked
	head []byte // what the reply's PDU begins with

	waiting int       // bytes left in the connection's buffer
	heard   time.Time // when the last byte was seen
	lost    bool      // the bytes now skipped were reported already
	adu     []byte    // the request, reused
}

var _ framing = (*rtu)(nil)

func (f *rtu) opened(info transport.Info) { f.charTime = info.CharTime }

func (f *rtu) silence() time.Duration { return silenceOf(f.charTime) }

// silenceOf is what must stand between two frames: 3.5 characters, and 1.75 ms
// above 19,200 baud (Modbus over Serial Line V1.02, section 2.5.1.1). A
// connection without characters has none.
func silenceOf(charTime time.Duration) time.Duration {
	// A character has 10 or 11 bits, so this lies between those of 19,200 and of
	// the next faster speed.
	const fast = 10 * time.Second / 19200
	switch {
	case charTime == 0:
		return 0
	case charTime < fast:
		return 1750 * time.Microsecond
	}
	return charTime * 7 / 2
}

// inRTU is how many characters the frame of a PDU of that size has.
func inRTU(pdu int) int { return 1 + pdu + 2 }

func (f *rtu) request(unit byte, r Request) []byte {
	f.unit, f.head = unit, r.head
	f.waiting, f.lost = 0, false
	f.adu = AppendRTU(f.adu[:0], unit, r.pdu)
	return f.adu
}

// reply takes a frame apart; its CRC was checked by Split.
func (f *rtu) reply(msg []byte) (unit byte, pdu []byte, err error) {
	if len(msg) < minRTU {
		return 0, nil, wrongLength
	}
	return msg[0], msg[1 : len(msg)-2], nil
}

func (f *rtu) numbered() bool      { return false }
func (f *rtu) unfinished() bool    { return f.waiting > 0 }
func (f *rtu) lastByte() time.Time { return f.heard }

// Idle is the silence after which the line is looked over for a frame that
// starts later than the first byte: a USB adapter's pause and 3.5 characters.
func (f *rtu) Idle() time.Duration { return 20*time.Millisecond + f.charTime*7/2 }

// Max is the longest RTU frame.
func (f *rtu) Max() int { return maxRTU }

// Split implements transport.Framer. Each byte begins at most one frame that is
// checked, and a frame is short, so its time is linear in the noise.
func (f *rtu) Split(buf []byte, idle bool) (advance int, msg []byte, err error) {
	if len(buf) > f.waiting {
		f.heard = time.Now()
	}
	defer func() { f.waiting = len(buf) - advance }()

	for at := range buf {
		size := frameSize(buf[at:])
		if size > 0 && size <= len(buf)-at {
			if frame := buf[at : at+size]; CRC(frame) == 0 {
				if at > 0 && !f.lost {
					return f.skip(at, "noise before a frame")
				}
				f.lost = false
				return at + size, frame, nil
			}
		} else if size >= 0 && !idle {
			return f.skip(at, "a frame whose CRC is wrong, or noise")
		}
	}
	if !idle {
		return f.skip(len(buf), "noise")
	}
	advance, msg, err = f.skip(f.hope(buf), "a frame that did not end, or noise")
	f.lost = false
	return advance, msg, err
}

// skip drops bytes that begin no frame, and says so once for bytes that follow
// each other.
func (f *rtu) skip(n int, what string) (int, []byte, error) {
	if n == 0 || f.lost {
		return n, nil, nil
	}
	f.lost = true
	return n, nil, fmt.Errorf("%w: modbus: %s", transport.ErrFrame, what)
}

// hope is where the expected reply could begin in bytes that hold no frame.
func (f *rtu) hope(buf []byte) int {
	for at, b := range buf {
		if b != f.unit || f.head == nil {
			continue
		}
		rest := buf[at+1:]
		known := min(len(rest), len(f.head))
		fits := bytes.Equal(rest[:known], f.head[:known]) || rest[0] == f.head[0]|byte(exceptionBit)
		if size := frameSize(buf[at:]); fits && (size == 0 || size > len(rest)+1) {
			return at
		}
	}
	return len(buf)
}

// frameSize is how long the reply at the beginning of b is by its header: 0 when
// b is too short to tell, -1 when it begins no reply.
func frameSize(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	f := Function(b[1])
	switch f &^ exceptionBit {
	case ReadCoils, ReadDiscreteInputs, ReadHoldingRegisters, ReadInputRegisters, ReadWriteMultipleRegisters:
		switch {
		case f&exceptionBit != 0:
			return 5
		case len(b) < 3:
			return 0
		case 5+int(b[2]) > maxRTU:
			return -1
		}
		return 5 + int(b[2])
	case WriteSingleCoil, WriteSingleRegister, WriteMultipleCoils, WriteMultipleRegisters:
		if f&exceptionBit != 0 {
			return 5
		}
		return 8
	case MaskWriteRegister:
		if f&exceptionBit != 0 {
			return 5
		}
		return 10
	}
	return -1
}
