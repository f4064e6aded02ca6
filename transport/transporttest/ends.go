package transporttest

import (
	"net"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

func closeUnblocksRead(t *testing.T, h Harness) {
	conn, _ := open(t, h, &LengthFramer{})
	blocked := start(read(conn))
	blocked.untilBlocked(t)
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	expectError(t, blocked.result(t), net.ErrClosed)
}

func closeUnblocksWrite(t *testing.T, h Harness) {
	conn, _ := open(t, h, &LengthFramer{})
	blocked := start(writeTooMuch(conn))
	blocked.untilBlocked(t)
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	expectError(t, blocked.result(t), net.ErrClosed)
}

func aClosedConnIsClosedForEverything(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	send(t, far, numbered(1))
	send(t, far, numbered(2))
	expect(t, conn, numbered(1)) // the second is likely to be there already
	for range 3 {
		if err := conn.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		expectError(t, read(conn)(), net.ErrClosed)
		expectError(t, conn.Write([]byte("x")), net.ErrClosed)
		expectError(t, conn.Discard(), net.ErrClosed)
		expectError(t, conn.SetReadDeadline(time.Now()), net.ErrClosed)
		expectError(t, conn.SetWriteDeadline(time.Now()), net.ErrClosed)
	}
}

func aDeadPeerIsLostAndNeverClosed(t *testing.T, h Harness) {
	if h.Silent {
		return
	}
	conn, far := open(t, h, &LengthFramer{})
	far.Close()
	knock(conn)
	for range 2 {
		_, err := receive(t, conn)
		expectLost(t, err)
	}
	expectLost(t, conn.Discard())
	expectLost(t, start(writeUntilItFails(conn.Write)).result(t))
	expectLost(t, conn.Write([]byte("x")))
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	expectError(t, read(conn)(), net.ErrClosed)
}

func aDeadPeerEndsABlockedRead(t *testing.T, h Harness) {
	if h.Silent {
		return
	}
	conn, far := open(t, h, &LengthFramer{})
	blocked := start(read(conn))
	blocked.untilBlocked(t)
	far.Close()
	knock(conn)
	expectLost(t, blocked.result(t))
}

func aPeerThatDiesWithoutAGoodbyeIsLost(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	abrupt, ok := far.(interface{ Abort() error })
	if !ok {
		return // it has one way to die only
	}
	reading := start(read(conn))
	reading.untilBlocked(t)
	writing := start(writeTooMuch(conn))
	writing.untilBlocked(t)
	if err := abrupt.Abort(); err != nil {
		t.Fatal(err)
	}
	expectLost(t, reading.result(t))
	expectLost(t, writing.result(t))
}

func whatADeadPeerHadSaidIsRead(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	if !conn.Info().Reliable {
		return // a line that hangs up may drop what it held
	}
	for n := range 3 {
		send(t, far, numbered(n))
	}
	send(t, far, numbered(3)[:8])
	far.Close()
	for n := range 3 {
		expect(t, conn, numbered(n))
	}
	_, err := receive(t, conn)
	expectLost(t, err)
}

// knock sends a datagram, which is how the other side's network comes to say
// that nobody is there any more.
func knock(conn transport.Conn) {
	if conn.Info().MaxMessage > 0 {
		_ = conn.Write([]byte("x")) // may notice it at once, or only then
	}
}

// writeUntilItFails: the first bytes to a dead peer may still seem to pass.
func writeUntilItFails(write func([]byte) error) func() error {
	return func() error {
		for giveUp := time.Now().Add(patience); time.Now().Before(giveUp); {
			if err := write([]byte("x")); err != nil {
				return err
			}
		}
		return nil
	}
}
