package serial

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// icount is struct serial_icounter_struct of linux/serial.h, the same on every
// machine. The counters wrap.
type icount struct {
	_             [6]uint32 // modem lines, characters received and sent
	framing       uint32
	overrun       uint32
	parity        uint32
	breaks        uint32
	bufferOverrun uint32
	_             [9]uint32
}

// The size that the kernel writes; another does not compile.
var _ = [1]struct{}{}[unsafe.Sizeof(icount{})-80]

// icount asks the driver; false where it doesn't count, or the device is gone.
func (l *line) icount() (c icount, ok bool) {
	err := l.Control(func(fd uintptr) {
		ok = ioctl(fd, unix.TIOCGICOUNT, unsafe.Pointer(&c)) == nil
	})
	return c, ok && err == nil
}

// counting is an open line, to a tally.
type counting interface {
	icount() (c icount, ok bool)
}

// tally sums up over lines that come and go.
type tally struct {
	mu    sync.Mutex
	total Counters
	open  map[counting]icount // what each driver said last
}

// opened begins to count on l: what happened before is not ours.
func (t *tally) opened(l counting) {
	now, ok := l.icount()
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = make(map[counting]icount)
	}
	t.open[l] = now
}

// closing takes what l has counted to the end.
func (t *tally) closing(l counting) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.look(l)
	delete(t.open, l)
}

func (t *tally) badEcho() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.Echo++
}

func (t *tally) counters() Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.open {
		t.look(l)
	}
	return t.total
}

// look adds what has been counted on l since the last look. The caller holds mu.
func (t *tally) look(l counting) {
	last, counts := t.open[l]
	if !counts {
		return
	}
	if now, ok := l.icount(); ok {
		t.total.add(last, now)
		t.open[l] = now
	}
}

// add counts the way from last to now, which may lead past the end of 32 bits.
func (c *Counters) add(last, now icount) {
	c.Parity += uint64(now.parity - last.parity)
	c.Framing += uint64(now.framing - last.framing)
	c.Overrun += uint64(now.overrun - last.overrun)
	c.Break += uint64(now.breaks - last.breaks)
	c.BufferOverrun += uint64(now.bufferOverrun - last.bufferOverrun)
}
