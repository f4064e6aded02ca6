package modbus

import (
	"encoding/binary"
	"fmt"
)

// Function is a function code (Modbus Application Protocol V1.1b3, section 6).
type Function byte

// The functions that this master speaks. In an exception reply the function
// carries the bit exceptionBit as well (section 7).
const (
	ReadCoils                  Function = 1
	ReadDiscreteInputs         Function = 2
	ReadHoldingRegisters       Function = 3
	ReadInputRegisters         Function = 4
	WriteSingleCoil            Function = 5
	WriteSingleRegister        Function = 6
	WriteMultipleCoils         Function = 15
	WriteMultipleRegisters     Function = 16
	MaskWriteRegister          Function = 22
	ReadWriteMultipleRegisters Function = 23

	exceptionBit Function = 0x80
)

// MaxPDU is the longest PDU in bytes (section 4.1).
const MaxPDU = 253

// The most that one request may carry (sections 6.1, 6.3, 6.11, 6.12, 6.17).
const (
	MaxReadBits           = 2000
	MaxReadRegisters      = 125
	MaxWriteBits          = 1968
	MaxWriteRegisters     = 123
	MaxReadWriteRegisters = 121 // written by function 23
)

// Exception is the code of an exception reply (section 7): the slave got the
// request and says no.
type Exception byte

// Exception codes.
const (
	IllegalFunction    Exception = 1
	IllegalAddress     Exception = 2
	IllegalValue       Exception = 3
	DeviceFailure      Exception = 4
	Acknowledge        Exception = 5
	DeviceBusy         Exception = 6
	MemoryParityError  Exception = 8
	GatewayUnavailable Exception = 10
	GatewayNoAnswer    Exception = 11
)

func (e Exception) Error() string {
	return fmt.Sprintf("exception %d (%s)", byte(e), e.name())
}

// Reason is why a point has no value when the slave answered with e.
func (e Exception) Reason() string { return fmt.Sprintf("exception-%d", byte(e)) }

func (e Exception) name() string {
	switch e {
	case IllegalFunction:
		return "illegal function"
	case IllegalAddress:
		return "illegal data address"
	case IllegalValue:
		return "illegal data value"
	case DeviceFailure:
		return "server device failure"
	case Acknowledge:
		return "acknowledge"
	case DeviceBusy:
		return "server device busy"
	case MemoryParityError:
		return "memory parity error"
	case GatewayUnavailable:
		return "gateway path unavailable"
	case GatewayNoAnswer:
		return "gateway target device failed to respond"
	}
	return "not in the standard"
}

// Request is what a master asks of a slave. Make it with Read or one of the
// Write functions, which refuse what does not fit the limits of the standard.
// A Request is a value that does not change; it may be asked again and again.
type Request struct {
	pdu  []byte // as sent
	head []byte // what the PDU of a good reply begins with; all of it but the data
	size int    // length of a good reply's PDU
}

// Read asks for count values of a table, from address first on: functions 1 to
// 4 (sections 6.1 to 6.4). The reply's data are bits packed from the least
// significant one on, or registers in big-endian.
func Read(table Table, first, count int) (Request, error) {
	limit, size := MaxReadRegisters, 2*count
	if table.bits() {
		limit, size = MaxReadBits, (count+7)/8
	}
	if err := checkRange(first, count, limit); err != nil {
		return Request{}, err
	}
	f := table.function()
	pdu := binary.BigEndian.AppendUint16([]byte{byte(f)}, uint16(first))
	pdu = binary.BigEndian.AppendUint16(pdu, uint16(count))
	return Request{pdu: pdu, head: []byte{byte(f), byte(size)}, size: 2 + size}, nil
}

// WriteCoil sets one coil: function 5 (section 6.5).
func WriteCoil(address int, on bool) (Request, error) {
	value := uint16(0x0000)
	if on {
		value = 0xFF00
	}
	return writeSingle(WriteSingleCoil, address, value)
}

// WriteRegister sets one holding register: function 6 (section 6.6).
func WriteRegister(address int, value uint16) (Request, error) {
	return writeSingle(WriteSingleRegister, address, value)
}

func writeSingle(f Function, address int, value uint16) (Request, error) {
	if err := checkRange(address, 1, 1); err != nil {
		return Request{}, err
	}
	pdu := binary.BigEndian.AppendUint16([]byte{byte(f)}, uint16(address))
	pdu = binary.BigEndian.AppendUint16(pdu, value)
	return Request{pdu: pdu, head: pdu, size: len(pdu)}, nil
}

// WriteCoils sets coils from address first on: function 15 (section 6.11).
func WriteCoils(first int, on []bool) (Request, error) {
	data := make([]byte, (len(on)+7)/8)
	for i, bit := range on {
		if bit {
			data[i/8] |= 1 << (i % 8)
		}
	}
	return writeMany(WriteMultipleCoils, first, len(on), MaxWriteBits, data)
}

// WriteRegisters sets holding registers from address first on: function 16
// (section 6.12).
func WriteRegisters(first int, values []uint16) (Request, error) {
	return writeMany(WriteMultipleRegisters, first, len(values), MaxWriteRegisters, bigEndian(values))
}

func writeMany(f Function, first, count, limit int, data []byte) (Request, error) {
	if err := checkRange(first, count, limit); err != nil {
		return Request{}, err
	}
	pdu := binary.BigEndian.AppendUint16([]byte{byte(f)}, uint16(first))
	pdu = binary.BigEndian.AppendUint16(pdu, uint16(count))
	head := pdu[:len(pdu):len(pdu)]
	pdu = append(pdu, byte(len(data)))
	return Request{pdu: append(pdu, data...), head: head, size: len(head)}, nil
}

// MaskRegister sets the bits of a holding register that and leaves out to those
// of or, in one transaction: function 22 (section 6.16). The slave makes the
// register (register AND and) OR (or AND NOT and) of it.
func MaskRegister(address int, and, or uint16) (Request, error) {
	if err := checkRange(address, 1, 1); err != nil {
		return Request{}, err
	}
	pdu := []byte{byte(MaskWriteRegister)}
	for _, field := range []uint16{uint16(address), and, or} {
		pdu = binary.BigEndian.AppendUint16(pdu, field)
	}
	return Request{pdu: pdu, head: pdu, size: len(pdu)}, nil
}

// ReadWriteRegisters sets holding registers from writeFirst on and then reads
// count of them from readFirst on, in one transaction: function 23 (section
// 6.17). The reply's data are those of Read.
func ReadWriteRegisters(readFirst, count, writeFirst int, values []uint16) (Request, error) {
	if err := checkRange(readFirst, count, MaxReadRegisters); err != nil {
		return Request{}, err
	}
	if err := checkRange(writeFirst, len(values), MaxReadWriteRegisters); err != nil {
		return Request{}, err
	}
	pdu := []byte{byte(ReadWriteMultipleRegisters)}
	for _, field := range []int{readFirst, count, writeFirst, len(values)} {
		pdu = binary.BigEndian.AppendUint16(pdu, uint16(field))
	}
	pdu = append(pdu, byte(2*len(values)))
	pdu = append(pdu, bigEndian(values)...)
	head := []byte{byte(ReadWriteMultipleRegisters), byte(2 * count)}
	return Request{pdu: pdu, head: head, size: 2 + 2*count}, nil
}

func bigEndian(values []uint16) []byte {
	b := make([]byte, 0, 2*len(values))
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

func checkRange(first, count, limit int) error {
	switch {
	case count < 1 || count > limit:
		return fmt.Errorf("modbus: %d values in one request, 1 to %d are allowed", count, limit)
	case first < 0 || first > maxAddress || first+count-1 > maxAddress:
		return fmt.Errorf("modbus: addresses %d to %d, 0 to %d are allowed", first, first+count-1, maxAddress)
	}
	return nil
}

// Function is the code that r is asked with.
func (r Request) Function() Function { return Function(r.pdu[0]) }

// PDU is r as it is sent; the caller must not change it.
func (r Request) PDU() []byte { return r.pdu }

// changes tells whether r changes something in the slave, so that it must not
// be sent twice without asking.
func (r Request) changes() bool { return r.Function() > ReadInputRegisters }

func (r Request) String() string {
	first, count := int(binary.BigEndian.Uint16(r.pdu[1:])), int(binary.BigEndian.Uint16(r.pdu[3:]))
	switch f := r.Function(); {
	case f == WriteSingleCoil, f == WriteSingleRegister, f == MaskWriteRegister, count == 1:
		return fmt.Sprintf("function %d, address %d", f, first)
	}
	return fmt.Sprintf("function %d, addresses %d to %d", r.Function(), first, first+count-1)
}

// Reply takes what a PDU says in reply to r: the values read, which alias pdu
// and are empty for a write, or the Exception that the slave raised. Any other
// error means that pdu is not a reply to r.
func (r Request) Reply(pdu []byte) ([]byte, error) {
	if len(pdu) == 0 {
		return nil, wrongLength
	}
	switch Function(pdu[0]) {
	case r.Function() | exceptionBit:
		if len(pdu) != 2 {
			return nil, wrongLength
		}
		return nil, Exception(pdu[1])
	case r.Function():
	default:
		return nil, wrongFunction
	}
	if len(pdu) != r.size {
		return nil, wrongLength
	}
	for i, b := range r.head {
		if pdu[i] != b {
			if r.changes() && r.Function() != ReadWriteMultipleRegisters {
				return nil, wrongEcho
			}
			return nil, wrongLength // the byte count says so
		}
	}
	return pdu[len(r.head):], nil
}
