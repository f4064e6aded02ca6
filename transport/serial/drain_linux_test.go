package serial

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// slowPort drains when told to, as an adapter that hangs does. A pty can't show
// this: what is written to it has left at once.
type slowPort struct {
	serial.Port
	draining chan struct{} // gets one for each Drain that begins
	sent     chan error    // ends a Drain
	closed   chan struct{}
	dropped  chan struct{}
}

func (s *slowPort) Drain() error {
	s.draining <- struct{}{}
	return <-s.sent
}

func (s *slowPort) ResetOutputBuffer() error {
	select {
	case s.dropped <- struct{}{}:
	default:
	}
	return nil
}

func (s *slowPort) Close() error {
	close(s.closed)
	return s.Port.Close()
}

func slowLine(t *testing.T) (transport.Conn, *slowPort) {
	t.Helper()
	_, path := pair(t)
	stream, _, err := open(path, settings(), new(tally))
	if err != nil {
		t.Fatal(err)
	}
	l := stream.(*line)
	port := &slowPort{
		Port:     l.control.port,
		draining: make(chan struct{}, 1),
		sent:     make(chan error, 1),
		closed:   make(chan struct{}),
		dropped:  make(chan struct{}, 1),
	}
	l.control.port = port
	conn := framed.New(l, framer(), framed.NewPool(readSize), transport.Info{Transport: "serial", Remote: path})
	t.Cleanup(func() { conn.Close() })
	return conn, port
}

func TestWriteReturnsWhenTheBytesHaveLeft(t *testing.T) {
	conn, port := slowLine(t)
	written := make(chan error, 1)
	go func() { written <- conn.Write([]byte("x")) }()
	<-port.draining
	select {
	case err := <-written:
		t.Fatalf("returned %v while the line was sending", err)
	default:
	}
	port.sent <- unix.EINTR // a signal is no end
	<-port.draining
	port.sent <- nil
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestALineThatHangsEndsAWriteAtItsDeadlineAndDropsTheRest(t *testing.T) {
	conn, port := slowLine(t)
	_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if err := conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	<-port.dropped
	port.sent <- nil
}

func TestALineThatHangsIsClosedAtOnceAndItsPortAfterwards(t *testing.T) {
	conn, port := slowLine(t)
	written := make(chan error, 1)
	go func() { written <- conn.Write([]byte("x")) }()
	<-port.draining
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-written; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	<-port.dropped
	select {
	case <-port.closed:
		t.Fatal("the port was closed under a call that could then hit another file")
	default:
	}
	port.sent <- nil
	<-port.closed
}
