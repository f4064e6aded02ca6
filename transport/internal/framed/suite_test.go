package framed_test

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/framed"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAConnOnADescriptorIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Open: func(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) { return socketPair(t, f) },
	})
}

// socketPair is a line in the kernel on which a written byte has arrived when
// Write returns.
func socketPair(t *testing.T, f transport.Framer) (*framed.Conn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := framed.NewDescriptor(os.NewFile(uintptr(fds[0]), "near"))
	if err != nil {
		t.Fatal(err)
	}
	info := transport.Info{Transport: "socket pair", Remote: "far", Reliable: true, Ordered: true}
	return framed.New(stream, f, framed.NewPool(4<<10), info), os.NewFile(uintptr(fds[1]), "far")
}

func TestDiscardDropsWhatTheKernelHolds(t *testing.T) {
	conn, far := socketPair(t, &transporttest.LengthFramer{})
	defer conn.Close()
	defer far.Close()
	stale := bytes.Repeat(transporttest.Frame([]byte("stale")), 1000) // several reads' worth
	if _, err := far.Write(stale); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0)) // which is none of Discard's business
	if err := conn.Discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after Discard: %v", err)
	}
	if _, err := far.Write(transporttest.Frame([]byte("fresh"))); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	if msg, err := conn.Read(); string(msg) != string(transporttest.Frame([]byte("fresh"))) {
		t.Errorf("read %q, %v", msg, err)
	}
}

func TestBytesThatCameWhileNobodyReadAreNoSilence(t *testing.T) {
	const silence = 10 * time.Millisecond
	conn, far := socketPair(t, &transporttest.LengthFramer{Silence: silence})
	defer conn.Close()
	defer far.Close()
	msg := transporttest.Frame([]byte("its second half waits in the kernel"))
	if _, err := far.Write(msg[:10]); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := conn.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if _, err := far.Write(msg[10:]); err != nil {
		t.Fatal(err)
	}
	<-time.After(3 * silence)
	_ = conn.SetReadDeadline(time.Time{})
	if got, err := conn.Read(); string(got) != string(msg) {
		t.Errorf("read %q, %v", got, err)
	}
}
