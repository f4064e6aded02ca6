package wire_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"go.bug.st/serial"

	"github.com/mcp-edge/edge-agent/internal/sim/wire"
)

func TestAProgramThatSetsItsPortOtherwiseIsNotUnderstoodAndUnderstandsNothing(t *testing.T) {
	l := wire.New(wire.Config{Baud: 19200})
	device := &answering{with: []byte{1, 3, 0x55}}
	device.tap = l.Attach("device", device)
	port, err := l.OpenPort("program")
	if err != nil {
		t.Fatal(err)
	}
	port.Wants(wire.Setting{Baud: 19200, OddParity: true, StopBits: 1})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	defer running.Wait()
	defer cancel()

	said := []byte{1, 3, 0, 0}
	for name, c := range map[string]struct {
		mode       serial.Mode
		understood bool
	}{
		"as wanted":     {serial.Mode{BaudRate: 19200, Parity: serial.OddParity}, true},
		"another speed": {serial.Mode{BaudRate: 9600, Parity: serial.OddParity}, false},
		"other parity":  {serial.Mode{BaudRate: 19200, Parity: serial.EvenParity}, false},
		"two stop bits": {serial.Mode{BaudRate: 19200, Parity: serial.OddParity, StopBits: serial.TwoStopBits}, false},
	} {
		f, err := os.OpenFile(port.Path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		set, err := serial.Open(port.Path(), &c.mode)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(said); err != nil {
			t.Fatal(err)
		}
		heard := make([]byte, len(device.with))
		_ = f.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(f, heard); err != nil {
			t.Fatal(name, err)
		}
		if bytes.Equal(device.last(), said) != c.understood || bytes.Equal(heard, device.with) != c.understood {
			t.Errorf("%s: the device heard % x, the program % x", name, device.last(), heard)
		}
		set.Close()
		f.Close()
	}
}

// answering is a station that says the same to whatever it hears.
type answering struct {
	tap   *wire.Tap
	with  []byte
	heard []byte

	mu       sync.Mutex
	sentence []byte // what was heard last
}

func (a *answering) Hear(b []byte) { a.heard = append(a.heard, b...) }

func (a *answering) Quiet(at time.Time) {
	if len(a.heard) == 0 {
		return
	}
	a.mu.Lock()
	a.sentence, a.heard = a.heard, nil
	a.mu.Unlock()
	a.tap.SayAt(at, a.with, nil)
}

func (a *answering) last() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sentence
}
