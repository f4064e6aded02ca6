package modbus

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// must takes a request that is within the limits.
func must(r Request, err error) Request {
	if err != nil {
		panic(err)
	}
	return r
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// examples are those of Modbus Application Protocol V1.1b3, section 6.
func examples() []struct {
	name         string
	request      Request
	asked, reply string
	data         string
} {
	bits := []bool{true, false, true, true, false, false, true, true, true, false}
	return []struct {
		name         string
		request      Request
		asked, reply string
		data         string
	}{
		{"6.1", must(Read(Coil, 19, 19)), "01 0013 0013", "01 03 CD6B05", "CD6B05"},
		{"6.2", must(Read(Discrete, 196, 22)), "02 00C4 0016", "02 03 ACDB35", "ACDB35"},
		{"6.3", must(Read(Holding, 107, 3)), "03 006B 0003", "03 06 022B 0000 0064", "022B 0000 0064"},
		{"6.4", must(Read(Input, 8, 1)), "04 0008 0001", "04 02 000A", "000A"},
		{"6.5", must(WriteCoil(172, true)), "05 00AC FF00", "05 00AC FF00", ""},
		{"6.6", must(WriteRegister(1, 3)), "06 0001 0003", "06 0001 0003", ""},
		{"6.11", must(WriteCoils(19, bits)), "0F 0013 000A 02 CD01", "0F 0013 000A", ""},
		{"6.12", must(WriteRegisters(1, []uint16{0x000A, 0x0102})), "10 0001 0002 04 000A 0102", "10 0001 0002", ""},
		{
			"6.17", must(ReadWriteRegisters(3, 6, 14, []uint16{0xFF, 0xFF, 0xFF})), "17 0003 0006 000E 0003 06 00FF 00FF 00FF",
			"17 0C 00FE 0ACD 0001 0003 000D 00FF", "00FE 0ACD 0001 0003 000D 00FF",
		},
	}
}

func TestRequestsAndRepliesAreThoseOfTheStandardsExamples(t *testing.T) {
	for _, e := range examples() {
		if !bytes.Equal(e.request.PDU(), unhex(t, e.asked)) {
			t.Errorf("section %s: request % X", e.name, e.request.PDU())
		}
		data, err := e.request.Reply(unhex(t, e.reply))
		if err != nil || !bytes.Equal(data, unhex(t, e.data)) {
			t.Errorf("section %s: reply % X, %v", e.name, data, err)
		}
	}
}

func TestAnExceptionIsAReplyWithItsName(t *testing.T) {
	_, err := must(Read(Holding, 0, 1)).Reply([]byte{0x83, 2})
	var e Exception
	if !errors.As(err, &e) || e != IllegalAddress || e.Reason() != "exception-2" || e.Error() != "exception 2 (illegal data address)" {
		t.Errorf("%v", err)
	}
}

func TestWhatCanNotBeTheReplyIsNotTakenForIt(t *testing.T) {
	read, write := must(Read(Holding, 0, 2)), must(WriteRegister(7, 9))
	for _, c := range []struct {
		name    string
		request Request
		pdu     string
		want    discard
	}{
		{"nothing", read, "", wrongLength},
		{"another function", read, "04 04 0000 0000", wrongFunction},
		{"another function's exception", read, "84 02", wrongFunction},
		{"an exception without a code", read, "83", wrongLength},
		{"an exception with more", read, "83 02 00", wrongLength},
		{"a register less", read, "03 02 0000", wrongLength},
		{"a register more", read, "03 06 0000 0000 0000", wrongLength},
		{"a byte count that lies", read, "03 02 0000 0000", wrongLength},
		{"the echo of another address", write, "06 0008 0009", wrongEcho},
		{"the echo of another value", write, "06 0007 0008", wrongEcho},
	} {
		if _, err := c.request.Reply(unhex(t, c.pdu)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestRequestsBeyondTheStandardsLimitsAreRefused(t *testing.T) {
	for name, err := range map[string]error{
		"no registers":         second(Read(Holding, 0, 0)),
		"126 registers":        second(Read(Input, 0, 126)),
		"2001 coils":           second(Read(Coil, 0, 2001)),
		"beyond the last":      second(Read(Holding, 65535, 2)),
		"a negative address":   second(WriteCoil(-1, true)),
		"124 registers":        second(WriteRegisters(0, make([]uint16, 124))),
		"1969 coils":           second(WriteCoils(0, make([]bool, 1969))),
		"nothing to write":     second(WriteRegisters(0, nil)),
		"122 beside a read":    second(ReadWriteRegisters(0, 1, 0, make([]uint16, 122))),
		"126 beside a write":   second(ReadWriteRegisters(0, 126, 0, make([]uint16, 1))),
		"registers in address": second(WriteRegister(65536, 0)),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, r := range []Request{
		must(Read(Holding, 65411, 125)), must(Read(Discrete, 0, 2000)),
		must(WriteCoils(0, make([]bool, 1968))), must(WriteRegisters(0, make([]uint16, 123))),
		must(ReadWriteRegisters(0, 125, 0, make([]uint16, 121))),
	} {
		if len(r.PDU()) > MaxPDU || r.size > MaxPDU {
			t.Errorf("%v: %d bytes, reply %d", r, len(r.PDU()), r.size)
		}
	}
}

func second(_ Request, err error) error { return err }

func FuzzReply(f *testing.F) {
	for i, e := range examples() {
		f.Add(uint8(i), unhex(f, e.reply))
	}
	f.Add(uint8(2), []byte{0x83, 2})
	f.Add(uint8(0), []byte{})
	f.Fuzz(func(t *testing.T, which uint8, pdu []byte) {
		all := examples()
		r := all[int(which)%len(all)].request
		data, err := r.Reply(pdu)
		var why discard
		var refused Exception
		switch {
		case err == nil:
			if len(pdu) != r.size || len(data) != r.size-len(r.head) || pdu[0] != r.pdu[0] {
				t.Errorf("% X taken as the reply to %v", pdu, r)
			}
		case errors.As(err, &refused):
			if len(pdu) != 2 {
				t.Errorf("% X taken as an exception", pdu)
			}
		case !errors.As(err, &why):
			t.Errorf("% X: %v", pdu, err)
		}
	})
}
