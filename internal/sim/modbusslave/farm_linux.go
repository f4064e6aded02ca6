package modbusslave

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
)

// Farm is a great number of slaves for as little processor time as possible:
// each connection is a slave of its own, all answer alike, and one loop over
// epoll(7) serves them. It knows one request, reading holding registers (function
// 3), and closes a connection that asks anything else. Register n holds n.
type Farm struct {
	// OnRequest, when set, gets the number of the connection, from 0 in the order
	// in which they were accepted, and when its request was read. The loop calls
	// it, so it must not block.
	OnRequest func(conn int, at time.Time)
}

// farmed is one connection of a Farm.
type farmed struct {
	number int
	in     [farmBuffer]byte
	have   int
}

const (
	farmRequest = 12  // MBAP header and a read request (Messaging on TCP/IP V1.0b, 3.1.3)
	farmBuffer  = 64  // a master may ask again before it has the answer
	farmEvents  = 256 // taken from the kernel at a time
	farmMost    = 125 // registers in one request (Application Protocol V1.1b3, 6.3)
)

// Serve answers on each connection of ln until ctx ends, then closes them all,
// and ln.
func (f *Farm) Serve(ctx context.Context, ln *net.TCPListener) error {
	defer func() { _ = ln.Close() }()
	file, err := ln.File() // a duplicate, in blocking mode
	if err != nil {
		return fmt.Errorf("modbusslave: farm on %s: %w", ln.Addr(), err)
	}
	defer file.Close()
	loop, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("modbusslave: farm on %s: epoll_create1: %w", ln.Addr(), err)
	}
	defer func() { _ = unix.Close(loop) }()
	s := &farmer{Farm: f, loop: loop, listener: int(file.Fd()), conns: make(map[int]*farmed)}
	defer s.closeAll()
	if err := errors.Join(unix.SetNonblock(s.listener, true), s.watch(s.listener)); err != nil {
		return fmt.Errorf("modbusslave: farm on %s: %w", ln.Addr(), err)
	}
	if err := s.serve(ctx); err != nil {
		return fmt.Errorf("modbusslave: farm on %s: %w", ln.Addr(), err)
	}
	return nil
}

// farmer is a Farm at work. Only serve's goroutine uses it.
type farmer struct {
	*Farm
	loop, listener int
	accepted       int
	conns          map[int]*farmed // by descriptor
	out            []byte
}

func (s *farmer) watch(fd int) error {
	return unix.EpollCtl(s.loop, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (s *farmer) serve(ctx context.Context) error {
	events := make([]unix.EpollEvent, farmEvents)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(s.loop, events, 100) // ms; then ctx is looked at
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if fd == s.listener {
				if err := s.accept(); err != nil {
					return err
				}
			} else if !s.answer(fd) {
				_ = unix.Close(fd)
				delete(s.conns, fd)
			}
		}
	}
	return nil
}

func (s *farmer) accept() error {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN:
			return nil
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			return fmt.Errorf("accept4: %w", err)
		}
		if err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), s.watch(fd)); err != nil {
			_ = unix.Close(fd)
			return err
		}
		s.conns[fd] = &farmed{number: s.accepted}
		s.accepted++
	}
}

// answer reads what has come and answers each whole request; false ends the
// connection.
func (s *farmer) answer(fd int) bool {
	c := s.conns[fd]
	n, err := unix.Read(fd, c.in[c.have:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return true
	}
	if err != nil || n == 0 {
		return false
	}
	c.have += n
	at := time.Now()
	s.out = s.out[:0]
	for c.have >= farmRequest {
		if !s.reply(c.in[:farmRequest]) {
			return false
		}
		if s.OnRequest != nil {
			s.OnRequest(c.number, at)
		}
		c.have = copy(c.in[:], c.in[farmRequest:c.have])
	}
	if len(s.out) == 0 {
		return true
	}
	n, err = unix.Write(fd, s.out)
	return err == nil && n == len(s.out) // a master that reads its answers leaves room
}

// reply appends the answer to a request; false when it is none that a Farm knows.
func (s *farmer) reply(request []byte) bool {
	first, count := binary.BigEndian.Uint16(request[8:]), binary.BigEndian.Uint16(request[10:])
	if modbus.Function(request[7]) != modbus.ReadHoldingRegisters || count < 1 || count > farmMost ||
		[4]byte(request[2:6]) != [4]byte{0, 0, 0, 6} {
		return false
	}
	s.out = append(s.out, request[0], request[1], 0, 0, 0, byte(3+2*count), request[6], request[7], byte(2*count))
	for i := range count {
		s.out = binary.BigEndian.AppendUint16(s.out, first+i)
	}
	return true
}

func (s *farmer) closeAll() {
	for fd := range s.conns {
		_ = unix.Close(fd)
	}
}
