package transporttest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

func infoTellsWhatAndWhere(t *testing.T, h Harness) {
	conn, _ := open(t, h, &LengthFramer{})
	info := conn.Info()
	if info.Transport == "" || info.Remote == "" {
		t.Errorf("%+v lacks the transport or the peer", info)
	}
	if info.MaxMessage < 0 || info.CharTime < 0 {
		t.Errorf("%+v has a negative limit", info)
	}
	conn.Close()
	if !reflect.DeepEqual(conn.Info(), info) {
		t.Errorf("it was %+v, and is %+v after Close", info, conn.Info())
	}
}

func aMessageArrivesWholeHoweverItIsCut(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	sent := start(func() error {
		for _, b := range slices.Concat(Frame([]byte("cut in bytes")), Frame(nil), Frame([]byte("again"))) {
			if _, err := far.Write([]byte{b}); err != nil {
				return err
			}
		}
		return nil
	})
	expect(t, conn, Frame([]byte("cut in bytes")))
	expect(t, conn, Frame(nil))
	expect(t, conn, Frame([]byte("again")))
	if err := sent.result(t); err != nil {
		t.Errorf("the far end could not write: %v", err)
	}
}

func messagesInOnePieceArriveOneByOne(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	var piece []byte
	for n := range 50 {
		piece = append(piece, numbered(n)...)
	}
	send(t, far, piece)
	for n := range 50 {
		expect(t, conn, numbered(n))
	}
}

func writeSendsTheBytesAsTheyAre(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	msg := fill(256) // each value of a byte
	for range 2 {
		if err := conn.Write(msg); err != nil {
			t.Fatal(err)
		}
		expectBytes(t, far, msg)
	}
}

func aLargeMessagePassesBothWays(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	msg := Frame(fill(300 << 10))
	if limit := conn.Info().MaxMessage; limit > 0 && len(msg) > limit {
		msg = Frame(fill(limit - headerSize))
	}
	sent := start(func() error { _, err := far.Write(msg); return err })
	expect(t, conn, msg)
	if err := sent.result(t); err != nil {
		t.Fatalf("the far end could not write: %v", err)
	}
	written := start(func() error { return conn.Write(msg) })
	expectBytes(t, far, msg)
	if err := written.result(t); err != nil {
		t.Fatal(err)
	}
}

func aMessageBeyondTheLimitIsRefusedAndTheNextIsRead(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{Limit: 100})
	send(t, far, Frame(fill(100))[:headerSize]) // 106 with the header, which is all there is of it
	_, err := receive(t, conn)
	expectError(t, err, transport.ErrTooLarge)
	send(t, far, Frame(fill(94)))
	expect(t, conn, Frame(fill(94)))
}

func aMessageWithoutAnEndIsDroppedAtTheLimit(t *testing.T, h Harness) {
	const silence = 20 * time.Millisecond
	conn, far := open(t, h, &SilenceFramer{Limit: 100, Silence: silence})
	send(t, far, fill(150))
	_, err := receive(t, conn)
	expectError(t, err, transport.ErrTooLarge)
	for err == nil || errors.Is(err, transport.ErrTooLarge) { // what came after the drop
		_ = conn.SetReadDeadline(time.Now().Add(3 * silence))
		_, err = conn.Read()
	}
	expectError(t, err, os.ErrDeadlineExceeded)
	send(t, far, []byte("good"))
	expect(t, conn, []byte("good"))
}

func writeRefusesMoreThanMaxMessage(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	limit := conn.Info().MaxMessage
	expectError(t, conn.Write(fill(limit+1)), transport.ErrTooLarge)
	if err := conn.Write(fill(limit)); err != nil {
		t.Fatalf("a message of MaxMessage bytes: %v", err)
	}
	expectBytes(t, far, fill(limit))
}

func noiseIsReportedAndTheNextMessageIsRead(t *testing.T, h Harness) {
	conn, far := open(t, h, &LengthFramer{})
	send(t, far, append([]byte("noise"), numbered(1)...))
	for range len("noise") {
		_, err := receive(t, conn)
		expectError(t, err, transport.ErrFrame)
	}
	expect(t, conn, numbered(1))
}

func silenceEndsAMessage(t *testing.T, h Harness) {
	conn, far := open(t, h, &SilenceFramer{Silence: 30 * time.Millisecond})
	for n := range 3 {
		send(t, far, numbered(n))
		began := time.Now()
		expect(t, conn, numbered(n))
		if waited := time.Since(began); waited < 25*time.Millisecond { // less what the bytes came earlier
			t.Errorf("message %d ended after %v", n, waited)
		}
	}
}

func silenceIsSeenByReadsThatAreShorter(t *testing.T, h Harness) {
	conn, far := open(t, h, &SilenceFramer{Silence: 30 * time.Millisecond})
	send(t, far, numbered(1))
	giveUp := time.Now().Add(patience)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		msg, err := conn.Read()
		switch {
		case err == nil && string(msg) == string(numbered(1)):
			return
		case err == nil:
			t.Fatalf("got %q", msg)
		case time.Now().After(giveUp):
			t.Fatal("the silence was never seen")
		}
		expectError(t, err, os.ErrDeadlineExceeded)
	}
}

func readingAndWritingAtTheSameTime(t *testing.T, h Harness) {
	const count = 500
	conn, far := open(t, h, &LengthFramer{})
	underWay := make(chan struct{}, count)
	switch info := conn.Info(); {
	case info.HalfDuplex:
		underWay = make(chan struct{}, 1) // a message, its echo, the next
	case info.MaxMessage > 0:
		underWay = make(chan struct{}, fewDatagrams)
	}
	echo := start(func() error { _, err := io.Copy(far, far); return err })
	write := start(func() error {
		for n := range count {
			underWay <- struct{}{}
			if err := conn.Write(numbered(n)); err != nil {
				return fmt.Errorf("message %d: %w", n, err)
			}
		}
		return nil
	})
	for n := range count {
		expect(t, conn, numbered(n))
		<-underWay
	}
	if err := write.result(t); err != nil {
		t.Error(err)
	}
	conn.Close()
	far.Close()
	_ = echo.result(t) // that it ends is all
}

// watched tells how many bytes its Conn has offered it.
type watched struct {
	LengthFramer
	offered atomic.Int64
}

func (w *watched) Split(buf []byte, idle bool) (int, []byte, error) {
	w.offered.Store(int64(len(buf)))
	return w.LengthFramer.Split(buf, idle)
}

func discardDropsWhatHasArrived(t *testing.T, h Harness) {
	f := new(watched)
	conn, far := open(t, h, f)
	if err := conn.Discard(); err != nil {
		t.Fatalf("with nothing there: %v", err)
	}
	stale := Frame(fill(50))[:30]
	send(t, far, stale)
	for giveUp := time.Now().Add(patience); f.offered.Load() < int64(len(stale)); {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		if _, err := conn.Read(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(giveUp) {
			t.Fatalf("waiting for the stale bytes: %v", err)
		}
	}
	if err := conn.Discard(); err != nil {
		t.Fatal(err)
	}
	send(t, far, numbered(1))
	expect(t, conn, numbered(1))
}
