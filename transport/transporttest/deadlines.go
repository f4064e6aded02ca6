package transporttest

import (
	"os"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// more than any line takes without its far end reading.
const tooMuch = 32 << 20

// read drops the message, for where only the error matters.
func read(conn transport.Conn) func() error {
	return func() error { _, err := conn.Read(); return err }
}

func aReadDeadlineKeepsWhatHasArrived(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	msg := Frame([]byte("in two halves"))
	send(t, far, msg[:9])
	for range 2 {
		deadline := time.Now().Add(20 * time.Millisecond)
		_ = conn.SetReadDeadline(deadline)
		_, err := conn.Read()
		expectError(t, err, os.ErrDeadlineExceeded)
		if early := time.Until(deadline); early > 0 {
			t.Errorf("failed %v before its deadline", early)
		}
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	_, err := conn.Read()
	expectError(t, err, os.ErrDeadlineExceeded)
	send(t, far, msg[9:])
	expect(t, conn, msg)
}

func aReadDeadlineReachesABlockedRead(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	for range 3 {
		_ = conn.SetReadDeadline(time.Time{})
		blocked := start(read(conn))
		blocked.untilBlocked(t)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		expectError(t, blocked.result(t), os.ErrDeadlineExceeded)
	}
	send(t, far, numbered(1))
	expect(t, conn, numbered(1))
}

func aReadDeadlineCanBeMovedAway(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	soon := time.Now().Add(50 * time.Millisecond)
	_ = conn.SetReadDeadline(soon)
	blocked := start(read(conn))
	blocked.untilBlocked(t)
	_ = conn.SetReadDeadline(time.Time{})
	<-time.After(time.Until(soon) + 20*time.Millisecond)
	send(t, far, numbered(1))
	if err := blocked.result(t); err != nil {
		t.Errorf("%v at a deadline that had been taken away", err)
	}
}

func aWriteDeadlineEndsAWriteThatNobodyReads(t *testing.T, h Harness) {
	conn, _ := open(t, h, &LengthFramer{})
	_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	expectError(t, start(writeTooMuch(conn)).result(t), os.ErrDeadlineExceeded)
}

func aWriteDeadlineReachesABlockedWrite(t *testing.T, h Harness) {
	conn, _ := open(t, h, &LengthFramer{})
	blocked := start(writeTooMuch(conn))
	blocked.untilBlocked(t)
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
	expectError(t, blocked.result(t), os.ErrDeadlineExceeded)
}

// writeTooMuch writes until it fails, in as large messages as allowed.
func writeTooMuch(conn transport.Conn) func() error {
	size, count := tooMuch, 1
	if limit := conn.Info().MaxMessage; limit > 0 {
		size, count = limit, 2000
	}
	return func() error {
		msg := make([]byte, size)
		for range count {
			if err := conn.Write(msg); err != nil {
				return err
			}
		}
		return nil
	}
}
