package wire

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pty"
)

// Port is a place on a line for a program that opens a serial port: a
// pseudo-terminal. The line's Run serves it and closes it at its end, which the
// program sees as an unplugged adapter.
type Port struct {
	tap    *Tap
	path   string
	master *os.File
	slave  *os.File // held open, so that the program may come and go
	wanted *Setting
}

// Setting is how a program has to set its port to be understood.
//
// A pseudo-terminal keeps of a program's settings the speed, the number of stop
// bits and whether parity is odd, but not whether there is any (Linux,
// drivers/tty/pty.c): 8E1 and 8N1 look alike.
type Setting struct {
	Baud      int
	OddParity bool
	StopBits  int // 1 or 2
}

var _ Station = (*Port)(nil)

// OpenPort puts a pseudo-terminal on the line; call it before Run. If Run is
// never called, the port stays open.
func (l *Line) OpenPort(name string) (*Port, error) {
	master, path, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("wire: %w", err)
	}
	p := &Port{path: path, master: master, slave: slave}
	p.tap = l.Attach(name, p)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports = append(l.ports, p)
	return p, nil
}

// Wants has everything garbled, in both directions, while the program has set
// its port otherwise, as with UARTs that disagree. Call it before Run; without
// it nobody looks.
func (p *Port) Wants(s Setting) { p.wanted = &s }

// agreed is b, or noise in its place.
func (p *Port) agreed(b []byte) []byte {
	if p.wanted == nil {
		return b
	}
	if is, err := settingOf(p.master); err == nil && is == *p.wanted {
		return b
	}
	noise := make([]byte, len(b))
	for i := range b {
		noise[i] = b[i] ^ 0x5A
	}
	return noise
}

// Path is the device file to open.
func (p *Port) Path() string { return p.path }

// Hear implements Station. What the program does not read is lost when the
// terminal's buffer is full, as it is in a UART.
func (p *Port) Hear(b []byte) {
	_ = p.master.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
	_, _ = p.master.Write(p.agreed(b))
}

// Quiet implements Station.
func (p *Port) Quiet(time.Time) {}

// read says on the line what the program writes, until the port is closed.
func (p *Port) read() {
	b := make([]byte, 4096)
	for {
		n, err := p.master.Read(b)
		if err != nil {
			return
		}
		p.tap.Say(p.agreed(b[:n]))
	}
}

func (l *Line) closePorts() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.ports {
		p.master.Close()
		p.slave.Close()
	}
}
