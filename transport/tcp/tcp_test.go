package tcp

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func framers() transport.Framer { return &transporttest.LengthFramer{} }

func TestTCPIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{Open: openDialed, Absent: absent, Stuck: stuck, Listen: listen})
}

func TestAnAcceptedConnIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{Open: openAccepted, Absent: absent})
}

// far can die without a goodbye.
type far struct{ *net.TCPConn }

func (f far) Abort() error {
	if err := f.SetLinger(0); err != nil {
		return err
	}
	return f.Close()
}

func openDialed(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := NewDialer(l.Addr().String(), nil).Dial(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return conn, far{peer.(*net.TCPConn)}
}

func openAccepted(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) {
	l, err := Listen(t.Context(), "127.0.0.1:0", func() transport.Framer { return f }, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return conn, far{peer.(*net.TCPConn)}
}

func absent(t *testing.T) transport.Dialer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return NewDialer(l.Addr().String(), nil)
}

// stuck dials a socket whose queue of unaccepted connections is full: Linux
// then leaves further ones without an answer.
func stuck(t *testing.T) transport.Dialer {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: bound.(*syscall.SockaddrInet4).Port}
	first, err := net.Dial("tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return NewDialer(address.String(), nil)
}

func listen(t *testing.T, f func() transport.Framer) (transport.Listener, transport.Dialer) {
	l, err := Listen(t.Context(), "127.0.0.1:0", f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l, NewDialer(l.listener.Addr().String(), nil)
}

func TestAPeerThatOnlyStopsSendingIsLost(t *testing.T) {
	conn, peer := openDialed(t, framers())
	defer conn.Close()
	defer peer.Close()
	if err := peer.(far).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(); !errors.Is(err, transport.ErrLost) {
		t.Errorf("Read: %v", err)
	}
}

func TestKeepAliveIsOnAndDelayIsOffAtBothEnds(t *testing.T) {
	l, d := listen(t, framers)
	defer l.Close()
	dialed, err := d.Dial(t.Context(), framers())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()

	port := l.(*Listener).listener.Addr().(*net.TCPAddr).Port
	ends := 0
	for _, fd := range connectedTo(t, port) {
		ends++
		for _, option := range []struct {
			name          string
			level, option int
			want          int
		}{
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		} {
			if got, err := unix.GetsockoptInt(fd, option.level, option.option); err != nil || got != option.want {
				t.Errorf("%s is %d (%v), want %d", option.name, got, err, option.want)
			}
		}
	}
	if ends != 2 {
		t.Errorf("found %d ends of the connection", ends)
	}
}

// connectedTo finds this process's descriptors of connections that have port at
// one end.
func connectedTo(t *testing.T, port int) (fds []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		near, nearErr := unix.Getsockname(fd)
		peer, peerErr := unix.Getpeername(fd)
		if nearErr != nil || peerErr != nil {
			continue
		}
		for _, end := range []unix.Sockaddr{near, peer} {
			if in, ok := end.(*unix.SockaddrInet4); ok && in.Port == port {
				fds = append(fds, fd)
			}
		}
	}
	return fds
}

func TestATakenPortIsPermanent(t *testing.T) {
	l, _ := listen(t, framers)
	defer l.Close()
	_, err := Listen(t.Context(), l.(*Listener).listener.Addr().String(), framers, nil)
	if !errors.Is(err, transport.ErrPermanent) {
		t.Errorf("Listen: %v", err)
	}
}

func TestAnAddressThatIsNoneIsPermanent(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "127.0.0.1:1:2", "[::1"} {
		if _, err := NewDialer(address, nil).Dial(t.Context(), framers()); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("Dial %s: %v", address, err)
		}
		if _, err := Listen(t.Context(), address, framers, nil); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("Listen %s: %v", address, err)
		}
	}
}

func TestErrorsOfDialingAreTranslated(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	oserr := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
	}
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want error
	}{
		{"refused", t.Context(), oserr(syscall.ECONNREFUSED), transport.ErrLost},
		{"no route", t.Context(), oserr(syscall.EHOSTUNREACH), transport.ErrLost},
		{"no network", t.Context(), oserr(syscall.ENETUNREACH), transport.ErrLost},
		{"no answer", t.Context(), oserr(syscall.ETIMEDOUT), transport.ErrLost},
		{"reset", t.Context(), oserr(syscall.ECONNRESET), transport.ErrLost},
		{"no such host", t.Context(), &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}}, transport.ErrLost},
		{"closed inside net", t.Context(), &net.OpError{Op: "dial", Err: net.ErrClosed}, transport.ErrLost},
		{"forbidden", t.Context(), oserr(syscall.EPERM), transport.ErrPermanent},
		{"cancelled", over, oserr(syscall.ECONNREFUSED), context.Canceled},
	} {
		got := dialError(c.ctx, c.err)
		if !errors.Is(got, c.want) {
			t.Errorf("%s: %v is not of class %v", c.name, got, c.want)
		}
		var op *net.OpError
		if errors.Is(got, net.ErrClosed) || errors.As(got, &op) {
			t.Errorf("%s: %v leaks an error of net", c.name, got)
		}
	}
}
