package modbus

import (
	"fmt"
	"strconv"
	"strings"
)

// Table is one of the four primary tables of the data model (Modbus Application
// Protocol V1.1b3, section 4.3).
type Table uint8

// The tables. Coils and discrete inputs hold bits, the others 16-bit registers.
const (
	Coil Table = iota
	Discrete
	Input
	Holding
)

// maxAddress is the last address of each table; addresses count from zero
// (section 4.4).
const maxAddress = 0xFFFF

func tableNames() [4]string { return [...]string{"coil", "discrete", "input", "holding"} }

func (t Table) String() string { return tableNames()[t] }

func (t Table) bits() bool { return t <= Discrete }

func (t Table) writable() bool { return t == Coil || t == Holding }

// function is the one that reads t.
func (t Table) function() Function {
	switch t {
	case Coil:
		return ReadCoils
	case Discrete:
		return ReadDiscreteInputs
	case Input:
		return ReadInputRegisters
	}
	return ReadHoldingRegisters
}

// parseAddress reads TABLE:NUMBER. The error says what to write.
func parseAddress(s string) (Table, int, error) {
	name, number, ok := strings.Cut(s, ":")
	if !ok {
		return 0, 0, fmt.Errorf("%q is no address: write TABLE:NUMBER, such as holding:0", s)
	}
	for i, known := range tableNames() {
		if name != known {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return 0, 0, fmt.Errorf("%q is no address: write %s:NUMBER with a number from 0 to %d, counted from zero", s, name, maxAddress)
		}
		return Table(i), int(n), nil
	}
	return 0, 0, fmt.Errorf("%q is no table: write coil, discrete, input or holding", name)
}
