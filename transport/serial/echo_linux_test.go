package serial

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// hearing is a line whose adapter hears itself: what is sent comes back, changed
// by change, and then the answer comes.
func hearing(t *testing.T, sent int, change func([]byte), answer []byte) (d *Dialer, far *os.File) {
	t.Helper()
	far, path := pair(t)
	config := settings()
	config.Echo = true
	go func() {
		buf := make([]byte, sent)
		if _, err := io.ReadFull(far, buf); err != nil {
			return
		}
		change(buf)
		_, _ = far.Write(append(buf, answer...))
	}()
	return NewDialer(path, config), far
}

func TestOurOwnEchoIsLeftOut(t *testing.T) {
	request, answer := transporttest.Frame([]byte("request")), transporttest.Frame([]byte("answer"))
	d, _ := hearing(t, len(request), func([]byte) {}, answer)
	conn := dial(t, d, framer())
	if err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if msg, err := conn.Read(); string(msg) != string(answer) {
		t.Errorf("read %q, %v", msg, err)
	}
	if got := d.Counters().Echo; got != 0 {
		t.Errorf("%d echoes were wrong", got)
	}
}

func TestAnEchoThatDiffersIsCountedAndNeverTakenForAnAnswer(t *testing.T) {
	request, answer := transporttest.Frame([]byte("request")), transporttest.Frame([]byte("answer"))
	d, _ := hearing(t, len(request), func(b []byte) { b[0] ^= 1 }, answer)
	conn := dial(t, d, framer())
	if err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if msg, err := conn.Read(); string(msg) != string(answer) {
		t.Errorf("read %q, %v", msg, err)
	}
	if got := d.Counters().Echo; got == 0 {
		t.Error("it was not counted")
	}
}

func TestDiscardDropsTheEchoAndWhatCameWithIt(t *testing.T) {
	request := transporttest.Frame([]byte("request"))
	d, far := hearing(t, len(request), func([]byte) {}, transporttest.Frame([]byte("stale"))[:5])
	conn := dial(t, d, framer())
	if err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := conn.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := conn.Discard(); err != nil {
		t.Fatal(err)
	}
	reads(t, conn, far)
}

func TestWhateverTheChunksTheEchoAndNothingElseIsTakenOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wrong := 0
		e := echo{bad: func() { wrong++ }}
		var line []byte // what comes back
		for range rapid.IntRange(1, 10).Draw(t, "turns") {
			ours := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "sent")
			theirs := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "answer")
			e.sent(ours)
			line = append(line, ours...)
			for len(line) > 0 { // the echo, in pieces
				n := rapid.IntRange(1, len(line)).Draw(t, "piece")
				if heard := e.heard(line[:n]); heard != n {
					t.Fatalf("%d of %d bytes of echo", heard, n)
				}
				line = line[n:]
			}
			if len(theirs) > 0 && e.heard(theirs) != 0 {
				t.Fatal("an answer was taken for echo")
			}
		}
		if wrong != 0 || len(e.waiting) != 0 {
			t.Fatalf("%d wrong, %d waiting", wrong, len(e.waiting))
		}
	})
}

func TestAnAdapterWithoutEchoIsCountedAndFillsNoMemory(t *testing.T) {
	wrong := 0
	e := echo{bad: func() { wrong++ }}
	for range 1000 {
		e.sent(make([]byte, 1000))
	}
	if wrong == 0 || cap(e.waiting) > 2*longestEcho {
		t.Errorf("%d wrong, %d bytes kept", wrong, cap(e.waiting))
	}
}
