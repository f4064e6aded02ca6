package modbusslave

import "time"

// Reply is what a slave is about to answer; a Fault changes it.
type Reply struct {
	Unit  byte
	PDU   []byte
	Delay time.Duration // before it is sent
	// Before is said right before the frame.
	Before []byte
	// Mangle, when set, changes the finished frame; an empty one is not sent.
	Mangle func(frame []byte) []byte
	// Spoiled says that nobody can take it for an answer to the request.
	Spoiled bool

	number uint32 // that it carries, 0 for none
}

// Fault is something that goes wrong with an answer.
type Fault func(*Reply)

// Dead is a slave that does not answer.
func Dead(r *Reply) {
	r.Spoiled, r.Mangle = true, func([]byte) []byte { return nil }
}

// WrongUnit answers under the next slave's address.
func WrongUnit(r *Reply) { r.Spoiled, r.Unit = true, r.Unit+1 }

// WrongFunction answers as if another table had been asked.
func WrongFunction(r *Reply) { r.Spoiled, r.PDU[0] = true, r.PDU[0]^7 }

// WrongLength answers with a register too many, in a frame that is otherwise good.
func WrongLength(r *Reply) {
	r.Spoiled = true
	r.PDU = append(r.PDU, 0, 0)
	r.PDU[1] += 2
}

// BadCRC sends a frame whose last byte is wrong.
func BadCRC(r *Reply) {
	r.Spoiled, r.Mangle = true, func(frame []byte) []byte {
		frame[len(frame)-1] ^= 0x40
		return frame
	}
}

// Short stops in the middle of the frame.
func Short(r *Reply) {
	r.Spoiled, r.Mangle = true, func(frame []byte) []byte { return frame[:len(frame)/2] }
}

// Late answers after d.
func Late(d time.Duration) Fault { return func(r *Reply) { r.Delay = d } }

// Drop loses the byte at place i of the frame.
func Drop(i int) Fault {
	return func(r *Reply) {
		r.Spoiled, r.Mangle = true, func(frame []byte) []byte { return append(frame[:i:i], frame[i+1:]...) }
	}
}

// Babble says noise right before an answer that is otherwise good.
func Babble(noise ...byte) Fault { return func(r *Reply) { r.Before = noise } }

// Refuse answers with an exception.
func Refuse(code byte) Fault {
	return func(r *Reply) { r.PDU, r.number = []byte{r.PDU[0] | 0x80, code}, 0 }
}
