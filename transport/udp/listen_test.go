package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// idle is a Listener that reads nothing by itself: deliver stands in for what
// arrives.
func idle(t *testing.T, config Config) *Listener {
	t.Helper()
	l, err := listen(t.Context(), "127.0.0.1:0", config.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// arrive delivers a datagram from the n-th address of a network that never
// answers (RFC 5737).
func arrive(l *Listener, n int, msg []byte) bool {
	p := l.socket.packets.lend()
	p.n = copy(p.data, msg)
	p.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), uint16(1024+n))
	if l.deliver(p) {
		return true
	}
	l.socket.packets.takeBack(p)
	return false
}

func TestEachAddressHasItsOwnConn(t *testing.T) {
	l, d := listenAndDial(t, Config{}, Config{})
	defer l.Close()
	var near, far []transport.Conn
	for n := range 10 {
		c := dial(t, d)
		defer c.Close()
		write(t, c, fmt.Sprint("hello from ", n))
		a := accept(t, l)
		defer a.Close()
		expect(t, a, fmt.Sprint("hello from ", n))
		if a.Info().Remote != c.Info().Local {
			t.Errorf("%s is accepted as %s", c.Info().Local, a.Info().Remote)
		}
		near, far = append(near, c), append(far, a)
	}
	for n := range near {
		write(t, near[n], fmt.Sprint("again from ", n))
		expect(t, far[n], fmt.Sprint("again from ", n))
		write(t, far[n], fmt.Sprint("to ", n))
		expect(t, near[n], fmt.Sprint("to ", n))
	}
}

func TestADialedConnHearsNobodyElse(t *testing.T) {
	conn, peer := openDialed(t, Config{})
	defer conn.Close()
	stranger := mute(t).(*net.UDPConn)
	for range 3 {
		if _, err := (connected{stranger, conn.Info().Local}).Write([]byte("pretended")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := peer.Write([]byte("true")); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, "true")
}

func TestTheGateAnswersWithoutMakingAConn(t *testing.T) {
	gate := func(remote netip.AddrPort, d []byte) ([]byte, bool) {
		if !remote.Addr().Is4() {
			t.Errorf("%v is not the plain form of the address", remote)
		}
		switch string(d) {
		case "who?":
			return []byte("you!"), false
		case "more":
			return []byte("far too long"), false
		}
		return nil, string(d) == "open"
	}
	l, d := listenAndDial(t, Config{Gate: gate}, Config{})
	defer l.Close()
	c := dial(t, d)
	defer c.Close()
	for _, msg := range []string{"more", "noise", "who?"} {
		write(t, c, msg)
	}
	expect(t, c, "you!") // and nothing before it
	l.mu.Lock()
	if len(l.routes) > 0 || len(l.ready) > 0 {
		t.Error("the Listener remembers an address that was not admitted")
	}
	l.mu.Unlock()
	if got := l.Stats(); got.Refused != 3 {
		t.Errorf("%+v, want 3 refused", got)
	}
	write(t, c, "open")
	a := accept(t, l)
	expect(t, a, "open")
	write(t, c, "who?")
	expect(t, a, "who?") // the Gate is not asked any more
	a.Close()
	write(t, c, "who?")
	expect(t, c, "you!") // until the Conn is closed
}

func TestConnsThatNobodyAcceptsAreBounded(t *testing.T) {
	l := idle(t, Config{})
	for n := range backlog + 50 {
		if made := arrive(l, n, []byte("x")); made != (n < backlog) {
			t.Fatalf("datagram %d made a Conn: %v", n, made)
		}
	}
	if got := l.Stats().Backlog; got != 50 {
		t.Errorf("%d are counted, want 50", got)
	}
	accept(t, l).Close()
	if !arrive(l, 200, []byte("x")) {
		t.Error("there is room, and it is not used")
	}
}

func TestWhatNobodyReadsIsBoundedAndTheRestIsNotHurt(t *testing.T) {
	l := idle(t, Config{})
	for n := range 2 * mailboxPackets {
		arrive(l, 1, []byte{byte(n)})
	}
	if got := l.Stats().Overflow; got != mailboxPackets {
		t.Errorf("%d are counted, want %d", got, mailboxPackets)
	}
	arrive(l, 2, []byte("other"))
	slow, other := accept(t, l), accept(t, l)
	expect(t, other, "other")
	for n := range mailboxPackets {
		expect(t, slow, string([]byte{byte(n)})) // the oldest stay
	}
	slow.Close()
	other.Close()
	if got := l.socket.packets.waiting.Load(); got != 0 {
		t.Errorf("%d packets are said to wait", got)
	}
}

func TestManySlowReadersTogetherAreBounded(t *testing.T) {
	l := idle(t, Config{MaxDatagram: 65507})
	for n := range backlog {
		if !arrive(l, n, []byte("x")) {
			t.Errorf("reader %d gets nothing because others do not read", n)
		}
		for range 16 { // with the first, one more than a mailbox takes of that size
			arrive(l, n, []byte("x"))
		}
	}
	if got := l.socket.packets.waiting.Load() * 65507; got > socketBytes+backlog*65507 {
		t.Errorf("%d bytes wait", got)
	}
}

func TestReadersThatDoNotReadLeaveRoomForTheOthers(t *testing.T) {
	l := idle(t, Config{})
	for n := range 60 {
		for range 300 {
			arrive(l, n, []byte("x"))
		}
	}
	if got := l.socket.packets.waiting.Load() * defaultDatagram; got > socketBytes {
		t.Errorf("%d bytes wait", got)
	}
	for range 20 {
		if !arrive(l, 200, []byte("x")) {
			t.Fatal("there is no room for one that reads")
		}
	}
}

func TestAMessageBeyondTheLimitSaysWhichLimitAndWhere(t *testing.T) {
	conn, peer := openAccepted(t, Config{MaxDatagram: 600})
	defer conn.Close()
	defer peer.Close()
	err := conn.Write(make([]byte, 700))
	for _, part := range []string{"600", "700", "max_datagram"} {
		if !errors.Is(err, transport.ErrTooLarge) || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %s", err, part)
		}
	}
	if _, err := peer.Write(make([]byte, 700)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(); !errors.Is(err, transport.ErrTooLarge) || !strings.Contains(err.Error(), "600") {
		t.Errorf("Read: %v", err)
	}
}

func TestWhatTheNetworkDoesNotTakeIsTooLarge(t *testing.T) {
	l := idle(t, Config{})
	to := netip.MustParseAddrPort(l.local)
	err := l.socket.send(make([]byte, 65508), to, nil) // 65507 are the most that IPv4 has room for
	if !errors.Is(err, transport.ErrTooLarge) || !strings.Contains(err.Error(), "max_datagram") {
		t.Errorf("send: %v", err)
	}
}

func TestWithoutAWayADatagramIsLostAndTheConnIsNot(t *testing.T) {
	for _, err := range []error{
		os.NewSyscallError("sendto", syscall.ENETUNREACH), &net.OpError{Op: "write", Err: os.NewSyscallError("sendto", syscall.EHOSTUNREACH)},
	} {
		if !isNoWay(err) || !isNotice(err) {
			t.Errorf("%v", err)
		}
	}
}

func TestAnAddressThatIsNoneIsPermanent(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "127.0.0.1:1:2", "[::1"} {
		if _, err := NewDialer(address, Config{}).Dial(t.Context(), nil); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("Dial %s: %v", address, err)
		}
		if _, err := Listen(t.Context(), address, Config{}); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("Listen %s: %v", address, err)
		}
	}
	l, _ := listenAndDial(t, Config{}, Config{})
	defer l.Close()
	if _, err := Listen(t.Context(), l.local, Config{}); !errors.Is(err, transport.ErrPermanent) {
		t.Errorf("Listen on a taken port: %v", err)
	}
}

func TestBothFamiliesReachAListenerOnAllAddresses(t *testing.T) {
	l, err := Listen(t.Context(), ":0", Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.local).Port()
	hosts := []string{"127.0.0.1"}
	if v6, err := net.ListenPacket("udp6", "[::1]:0"); err == nil { // not every container has it
		v6.Close()
		hosts = append(hosts, "::1")
	}
	for _, host := range hosts {
		c := dial(t, NewDialer(net.JoinHostPort(host, fmt.Sprint(port)), Config{}))
		write(t, c, "hello")
		a := accept(t, l)
		expect(t, a, "hello")
		write(t, a, "welcome")
		expect(t, c, "welcome")
		if c.Info().Local != a.Info().Remote {
			t.Errorf("%s is accepted as %s", c.Info().Local, a.Info().Remote)
		}
		a.Close()
		c.Close()
	}
}

func TestAnswersLeaveFromTheAddressThatWasAsked(t *testing.T) {
	ca := transporttest.NewCA(t)
	for _, secure := range []struct{ server, client transport.TLS }{{}, {ca.Server(), ca.Client()}} {
		for _, everywhere := range []string{":0", "0.0.0.0:0"} {
			l, err := Listen(t.Context(), everywhere, Config{TLS: secure.server})
			if err != nil {
				t.Fatal(err)
			}
			port := l.socket.udp.LocalAddr().(*net.UDPAddr).Port
			for _, address := range []string{fmt.Sprint("127.0.0.2:", port), fmt.Sprint("127.0.0.3:", port)} {
				dialed, accepted := meet(t, l, NewDialer(address, Config{TLS: secure.client}))
				write(t, accepted, "from where you asked")
				expect(t, dialed, "from where you asked") // or it would not have taken it
				if got := accepted.Info().Local; got != address {
					t.Errorf("the address of ours is %s, want %s", got, address)
				}
				dialed.Close()
				accepted.Close()
			}
			l.Close()
		}
	}
}

func TestMessagesDoNotAllocate(t *testing.T) {
	l, d := listenAndDial(t, Config{}, Config{})
	defer l.Close()
	dialed := dial(t, d)
	defer dialed.Close()
	msg := make([]byte, defaultDatagram)
	if err := dialed.Write(msg); err != nil {
		t.Fatal(err)
	}
	accepted := accept(t, l)
	defer accepted.Close()
	allocated := testing.AllocsPerRun(500, func() {
		_ = accepted.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := accepted.Read(); err != nil {
			t.Fatal(err)
		}
		if err := dialed.Write(msg); err != nil {
			t.Fatal(err)
		}
	})
	if allocated >= 1 {
		t.Errorf("%v allocations a message", allocated)
	}
}

func TestForgedFirstHellosAreBoundedAndAnsweredWithLess(t *testing.T) {
	ca := transporttest.NewCA(t)
	// A true ClientHello, to forge others from.
	silent := mute(t)
	go func() {
		_, _ = NewDialer(silent.LocalAddr().String(), Config{TLS: ca.Client()}).Dial(t.Context(), nil)
	}()
	buf := make([]byte, 2000)
	n, _, err := silent.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	forged, answer, answered := buf[:n], make([]byte, 2000), 0

	l, d := listenAndDial(t, Config{TLS: ca.Server()}, Config{TLS: ca.Client()})
	defer l.Close()
	attacker, err := net.Dial("udp", l.local)
	if err != nil {
		t.Fatal(err)
	}
	defer attacker.Close()
	for n := range 4 * unprovenMost {
		forged[30], forged[31] = byte(n), byte(n>>8) // in the random bytes
		if _, err := attacker.Write(forged); err != nil {
			t.Fatal(err)
		}
		_ = attacker.SetReadDeadline(time.Now().Add(5 * time.Millisecond)) // not all are answered: see door
		switch got, err := attacker.Read(answer); {
		case err == nil && got > len(forged):
			t.Fatalf("an answer of %d bytes to %d", got, len(forged))
		case err == nil:
			answered++
		}
	}
	if answered == 0 {
		t.Error("no hello was answered")
	}
	l.mu.Lock()
	if got := len(l.nursery.all); got > unprovenMost {
		t.Errorf("%d are remembered", got)
	}
	l.mu.Unlock()
	if got := l.Stats().Unproven; got < 2*unprovenMost {
		t.Errorf("%d are counted", got)
	}
	dialed, accepted := meet(t, l, d) // in the middle of it
	dialed.Close()
	accepted.Close()
	if len(l.ready) > 0 {
		t.Error("a forged hello came to Accept")
	}
}
