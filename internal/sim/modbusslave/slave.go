// Package modbusslave simulates Modbus slaves: RTU on a wire.Line, and RTU or
// Modbus TCP on a connection. They answer from tables that a test fills, and
// misbehave when told to.
//
// What a slave decodes and encodes is written anew here, and not taken from the
// master's code, so that the two check each other.
package modbusslave

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
)

// Answer is a good answer that carried the slave's own number and left in full:
// nobody spoke into it, and no Fault spoiled it.
type Answer struct {
	Unit  int
	N     uint32    // 1 for the first; rises by one, but leaves out what was spoiled
	Asked time.Time // when the request had arrived
	Sent  time.Time // when the answer's last character had left
}

// Config describes a slave.
type Config struct {
	Unit  int
	Delay time.Duration // between request and answer, besides the silence that ends the request
	// OnAnswer, when set, gets each answer with a number, after it has left.
	// Whoever serves the slave calls it, so it must not block.
	OnAnswer func(Answer)
}

// Slave is one simulated slave. Its methods may be called concurrently.
type Slave struct {
	cfg Config

	mu      sync.Mutex
	cells   map[cell]uint16
	refused map[cell]modbus.Exception
	number  *cell // the first of two registers, nil when there is none
	n       uint32
	next    []Fault
	always  Fault
}

type cell struct {
	table   modbus.Table
	address int
}

// New makes a slave with empty tables: it refuses each address that was not set.
func New(cfg Config) *Slave {
	return &Slave{cfg: cfg, cells: make(map[cell]uint16), refused: make(map[cell]modbus.Exception)}
}

// Set sets registers, or bits (0 is off), from an address on.
func (s *Slave) Set(table modbus.Table, address int, values ...uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, v := range values {
		s.cells[cell{table, address + i}] = v
	}
}

// Get returns what stands at an address; 0 when nothing was set.
func (s *Slave) Get(table modbus.Table, address int) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cells[cell{table, address}]
}

// Refuse has requests that touch an address answered with an exception; code 0
// ends that.
func (s *Slave) Refuse(table modbus.Table, address int, code modbus.Exception) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if code == 0 {
		delete(s.refused, cell{table, address})
	} else {
		s.refused[cell{table, address}] = code
	}
}

// Number has the slave count its answers in two registers, big-endian: each
// answer that reads both of them carries a number of its own, from 1.
func (s *Slave) Number(table modbus.Table, address int) {
	s.Set(table, address, 0, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number = &cell{table, address}
}

// Next has faults befall the next answers, one each; nil is no fault.
func (s *Slave) Next(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, faults...)
}

// Always has a fault befall each answer for which Next has none; nil ends that.
func (s *Slave) Always(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always = f
}

// obey does what a request to all slaves says.
func (s *Slave) obey(pdu []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.execute(pdu, new(Reply))
}

// answer is the reply to a request PDU, with what a fault makes of it.
func (s *Slave) answer(pdu []byte) Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Reply{Unit: byte(s.cfg.Unit), Delay: s.cfg.Delay}
	r.PDU = s.execute(pdu, &r)
	fault := s.always
	if len(s.next) > 0 {
		fault, s.next = s.next[0], s.next[1:]
	}
	if fault != nil {
		fault(&r)
	}
	return r
}

// sent reports an answer that has left in full.
func (s *Slave) sent(r Reply, asked, at time.Time) {
	if r.number != 0 && !r.Spoiled && s.cfg.OnAnswer != nil {
		s.cfg.OnAnswer(Answer{Unit: s.cfg.Unit, N: r.number, Asked: asked, Sent: at})
	}
}

// execute does what a request says and returns the reply's PDU (Modbus
// Application Protocol V1.1b3, section 6).
func (s *Slave) execute(pdu []byte, r *Reply) []byte {
	if len(pdu) < 5 {
		return exception(pdu, modbus.IllegalValue)
	}
	first, second := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	switch f := modbus.Function(pdu[0]); f {
	case modbus.ReadCoils:
		return s.readBits(pdu, modbus.Coil, first, second)
	case modbus.ReadDiscreteInputs:
		return s.readBits(pdu, modbus.Discrete, first, second)
	case modbus.ReadHoldingRegisters:
		return s.readRegisters(pdu, modbus.Holding, first, second, r)
	case modbus.ReadInputRegisters:
		return s.readRegisters(pdu, modbus.Input, first, second, r)
	case modbus.WriteSingleCoil:
		if second != 0 && second != 0xFF00 {
			return exception(pdu, modbus.IllegalValue)
		}
		return s.write(pdu, modbus.Coil, first, []uint16{uint16(second >> 15)}, pdu[:5])
	case modbus.WriteSingleRegister:
		return s.write(pdu, modbus.Holding, first, []uint16{uint16(second)}, pdu[:5])
	case modbus.WriteMultipleCoils:
		if len(pdu) < 6 || len(pdu) != 6+(second+7)/8 || int(pdu[5]) != len(pdu)-6 {
			return exception(pdu, modbus.IllegalValue)
		}
		values := make([]uint16, second)
		for i := range values {
			values[i] = uint16(pdu[6+i/8] >> (i % 8) & 1)
		}
		return s.write(pdu, modbus.Coil, first, values, pdu[:5])
	case modbus.WriteMultipleRegisters:
		if len(pdu) < 6 || len(pdu) != 6+2*second || int(pdu[5]) != 2*second {
			return exception(pdu, modbus.IllegalValue)
		}
		return s.write(pdu, modbus.Holding, first, registers(pdu[6:]), pdu[:5])
	case modbus.MaskWriteRegister:
		if len(pdu) != 7 {
			return exception(pdu, modbus.IllegalValue)
		}
		and, or := uint16(second), binary.BigEndian.Uint16(pdu[5:])
		is := s.cells[cell{modbus.Holding, first}]
		return s.write(pdu, modbus.Holding, first, []uint16{is&and | or&^and}, pdu)
	case modbus.ReadWriteMultipleRegisters:
		if len(pdu) < 10 || int(pdu[9]) != len(pdu)-10 || int(binary.BigEndian.Uint16(pdu[7:]))*2 != len(pdu)-10 {
			return exception(pdu, modbus.IllegalValue)
		}
		if reply := s.write(pdu, modbus.Holding, int(binary.BigEndian.Uint16(pdu[5:])), registers(pdu[10:]), nil); reply != nil {
			return reply
		}
		return s.readRegisters(pdu, modbus.Holding, first, second, r)
	}
	return exception(pdu, modbus.IllegalFunction)
}

func registers(b []byte) []uint16 {
	values := make([]uint16, len(b)/2)
	for i := range values {
		values[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return values
}

func exception(pdu []byte, code modbus.Exception) []byte {
	var f byte
	if len(pdu) > 0 {
		f = pdu[0]
	}
	return []byte{f | 0x80, byte(code)}
}

// check is the exception for a range of addresses, 0 for none.
func (s *Slave) check(table modbus.Table, first, count, limit int) modbus.Exception {
	if count < 1 || count > limit {
		return modbus.IllegalValue
	}
	for address := first; address < first+count; address++ {
		at := cell{table, address}
		if code := s.refused[at]; code != 0 {
			return code
		}
		if _, ok := s.cells[at]; !ok {
			return modbus.IllegalAddress
		}
	}
	return 0
}

func (s *Slave) readBits(pdu []byte, table modbus.Table, first, count int) []byte {
	if code := s.check(table, first, count, 2000); code != 0 {
		return exception(pdu, code)
	}
	data := make([]byte, (count+7)/8)
	for i := range count {
		if s.cells[cell{table, first + i}] != 0 {
			data[i/8] |= 1 << (i % 8)
		}
	}
	return append([]byte{pdu[0], byte(len(data))}, data...)
}

func (s *Slave) readRegisters(pdu []byte, table modbus.Table, first, count int, r *Reply) []byte {
	if code := s.check(table, first, count, 125); code != 0 {
		return exception(pdu, code)
	}
	if n := s.number; n != nil && n.table == table && first <= n.address && first+count >= n.address+2 {
		s.n++
		r.number = s.n
		s.cells[*n] = uint16(s.n >> 16)
		s.cells[cell{table, n.address + 1}] = uint16(s.n)
	}
	reply := []byte{pdu[0], byte(2 * count)}
	for i := range count {
		reply = binary.BigEndian.AppendUint16(reply, s.cells[cell{table, first + i}])
	}
	return reply
}

func (s *Slave) write(pdu []byte, table modbus.Table, first int, values []uint16, reply []byte) []byte {
	if code := s.check(table, first, len(values), 1968); code != 0 {
		return exception(pdu, code)
	}
	for i, v := range values {
		s.cells[cell{table, first + i}] = v
	}
	return reply
}
