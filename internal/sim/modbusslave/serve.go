package modbusslave

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
)

// Attach hangs the slave on a line, where it speaks RTU.
func (s *Slave) Attach(line *wire.Line) {
	st := &station{slave: s, line: line}
	st.tap = line.Attach(fmt.Sprintf("unit %d", s.cfg.Unit), st)
}

// station is a slave on a line. Only the line's goroutine uses it.
type station struct {
	slave *Slave
	line  *wire.Line
	tap   *wire.Tap
	frame []byte
}

var _ wire.Station = (*station)(nil)

// longest is more than an RTU frame may have.
const longest = 512

func (st *station) Hear(b []byte) {
	st.frame = append(st.frame, b[:min(len(b), longest-len(st.frame))]...)
}

func (st *station) Quiet(at time.Time) {
	frame := st.frame
	st.frame = st.frame[:0]
	if len(frame) < 4 || modbus.CRC(frame) != 0 {
		return
	}
	if frame[0] == 0 { // for everyone, and answered by nobody
		st.slave.obey(frame[1 : len(frame)-2])
		return
	}
	if frame[0] != byte(st.slave.cfg.Unit) {
		return
	}
	asked := at.Add(-st.line.Silence())
	r := st.slave.answer(frame[1 : len(frame)-2])
	st.tap.SayAt(at.Add(r.Delay), r.frame(rtu, nil), func(t wire.Talk) {
		if !t.Garbled {
			st.slave.sent(r, asked, t.Ended)
		}
	})
}

// framing is how a frame is made of a unit and a PDU; header is the request's.
type framing func(header []byte, unit byte, pdu []byte) []byte

func rtu(_ []byte, unit byte, pdu []byte) []byte { return modbus.AppendRTU(nil, unit, pdu) }

func mbap(header []byte, unit byte, pdu []byte) []byte {
	return modbus.AppendMBAP(nil, binary.BigEndian.Uint16(header), unit, pdu)
}

// frame is r as it goes on the line; empty when the slave says nothing.
func (r Reply) frame(f framing, header []byte) []byte {
	frame := f(header, r.Unit, r.PDU)
	if r.Mangle != nil {
		frame = r.Mangle(frame)
	}
	if len(frame) == 0 {
		return nil
	}
	return append(append([]byte(nil), r.Before...), frame...)
}

// Server answers for slaves on TCP, as Modbus TCP or, when RTU is set, with RTU
// frames, as simple gateways do. A request to a unit that it does not have is
// not answered.
type Server struct {
	RTU    bool
	Slaves []*Slave
}

// Serve answers on each connection of ln until ctx ends, then closes them all,
// and ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("modbusslave: accepting on %s: %w", ln.Addr(), err)
		}
		serving.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.serve(ctx, conn)
		})
	}
}

// serve answers one request after the other until the connection ends.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	read, frame := readMBAP, framing(mbap)
	if s.RTU {
		read, frame = readRTU, rtu
	}
	for {
		header, unit, pdu, err := read(conn)
		if err != nil {
			return
		}
		asked := time.Now()
		for _, slave := range s.Slaves {
			if s.RTU && unit == 0 {
				slave.obey(pdu)
				continue
			}
			if slave.cfg.Unit != int(unit) {
				continue
			}
			r := slave.answer(pdu)
			select {
			case <-ctx.Done():
				return
			case <-time.After(r.Delay):
			}
			b := r.frame(frame, header)
			if len(b) == 0 {
				continue
			}
			if _, err := conn.Write(b); err != nil {
				return
			}
			slave.sent(r, asked, time.Now())
		}
	}
}

func readMBAP(conn io.Reader) (header []byte, unit byte, pdu []byte, err error) {
	header = make([]byte, 7)
	if _, err := io.ReadFull(conn, header); err != nil {
		return nil, 0, nil, err
	}
	length := int(binary.BigEndian.Uint16(header[4:]))
	if length < 2 || length > 1+modbus.MaxPDU || header[2] != 0 || header[3] != 0 {
		return nil, 0, nil, fmt.Errorf("no Modbus TCP header: % x", header)
	}
	pdu = make([]byte, length-1)
	_, err = io.ReadFull(conn, pdu)
	return header, header[6], pdu, err
}

// readRTU reads a request by the length that its function gives it.
func readRTU(conn io.Reader) (header []byte, unit byte, pdu []byte, err error) {
	b := make([]byte, 8)
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, 0, nil, err
	}
	more := 0
	switch modbus.Function(b[1]) {
	case modbus.WriteMultipleCoils, modbus.WriteMultipleRegisters:
		more = 9 + int(b[6]) - len(b)
	case modbus.MaskWriteRegister:
		more = 10 - len(b)
	case modbus.ReadWriteMultipleRegisters:
		rest := make([]byte, 3) // up to the byte count
		if _, err := io.ReadFull(conn, rest); err != nil {
			return nil, 0, nil, err
		}
		b = append(b, rest...)
		more = 13 + int(b[10]) - len(b)
	}
	rest := make([]byte, more)
	if _, err := io.ReadFull(conn, rest); err != nil {
		return nil, 0, nil, err
	}
	b = append(b, rest...)
	if modbus.CRC(b) != 0 {
		return nil, 0, nil, fmt.Errorf("bad CRC: % x", b)
	}
	return nil, b[0], b[1 : len(b)-2], nil
}
