package transporttest

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// fewDatagrams may be under way at a time without one being lost.
const fewDatagrams = 16

func aDatagramIsAMessage(t *testing.T, h Harness) {
	conn, far := open(t, h, framers())
	for n := range fewDatagrams {
		send(t, far, fill(n+1))
	}
	for n := range fewDatagrams {
		expect(t, conn, fill(n+1))
	}
}

func aDatagramBeyondTheLimitIsNotReadAndTheNextIs(t *testing.T, h Harness) {
	conn, far := open(t, h, framers())
	if _, err := far.Write(fill(conn.Info().MaxMessage + 1)); err != nil {
		return // neither does the far end take it
	}
	send(t, far, numbered(1))
	msg, err := receive(t, conn)
	if err != nil { // it may be told, or not
		expectError(t, err, transport.ErrTooLarge)
		msg, err = receive(t, conn)
	}
	if err != nil || string(msg) != string(numbered(1)) {
		t.Errorf("Read: %d bytes, %v", len(msg), err)
	}
}

func discardDropsTheDatagramsThatHaveArrived(t *testing.T, h Harness) {
	conn, far := open(t, h, framers())
	if err := conn.Discard(); err != nil {
		t.Fatalf("with nothing there: %v", err)
	}
	send(t, far, numbered(0))
	expect(t, conn, numbered(0)) // so that the way is known to be open
	for n := range fewDatagrams {
		send(t, far, numbered(n))
	}
	// What is still on its way is not what has arrived: drop until nothing comes.
	for quiet := false; !quiet; {
		if err := conn.Discard(); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := conn.Read()
		quiet = errors.Is(err, os.ErrDeadlineExceeded)
	}
	send(t, far, []byte("after"))
	expect(t, conn, []byte("after"))
}

func aReadDeadlineEndsReadAndTheNextGoesOn(t *testing.T, h Harness) {
	conn, far := open(t, h, framers())
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
	send(t, far, numbered(1))
	expect(t, conn, numbered(1))
}

// A datagram never waits for its reader.
func aWriteDeadlineThatHasPassedEndsWrite(t *testing.T, h Harness) {
	conn, _ := open(t, h, framers())
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	if err := start(writeTooMuch(conn)).result(t); err != nil {
		t.Fatalf("with a deadline far away: %v", err)
	}
	_ = conn.SetWriteDeadline(time.Unix(1, 0))
	expectError(t, conn.Write([]byte("x")), os.ErrDeadlineExceeded)
}

func closeEndsWritingThatNobodyReads(t *testing.T, h Harness) {
	conn, _ := open(t, h, framers())
	begun := make(chan struct{})
	writing := start(func() error {
		for n := 0; ; n++ {
			if err := conn.Write([]byte("x")); err != nil {
				return err
			}
			if n == 0 {
				close(begun)
			}
		}
	})
	<-begun
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	expectError(t, writing.result(t), net.ErrClosed)
}

func aPeerThatIsGoneIsOnlySilent(t *testing.T, h Harness) {
	if !h.Silent {
		return // ADeadPeerIsLostAndNeverClosed
	}
	conn, far := open(t, h, framers())
	far.Close()
	for range 3 {
		if err := conn.Write([]byte("x")); err != nil {
			t.Errorf("Write: %v", err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		_, err := conn.Read()
		expectError(t, err, os.ErrDeadlineExceeded)
	}
	if err := conn.Discard(); err != nil {
		t.Errorf("Discard: %v", err)
	}
}
