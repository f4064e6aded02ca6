package framed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/transport"
)

// script is a Stream that plays what a test wrote down.
type script struct {
	reads    []any // []byte, or the error to fail with; then io.EOF
	written  []byte
	writeErr error
}

var _ Stream = (*script)(nil)

func (s *script) Fill(in *Buffer, wait bool) (int, error) {
	if len(s.reads) == 0 {
		return 0, io.EOF
	}
	switch next := s.reads[0].(type) {
	case error:
		s.reads = s.reads[1:]
		return 0, next
	case []byte:
		n := copy(in.Space(), next)
		if s.reads[0] = next[n:]; n == len(next) {
			s.reads = s.reads[1:]
		}
		return n, nil
	}
	panic("a script of bytes and errors")
}

func (s *script) Write(p []byte) (int, error) {
	if s.writeErr != nil {
		return 0, s.writeErr
	}
	s.written = append(s.written, p...)
	return len(p), nil
}

func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { return nil }

// lines is a Framer: a message ends with a line feed. split, if set, takes over.
type lines struct {
	max   int
	idle  time.Duration
	split func(buf []byte, idle bool) (int, []byte, error)
}

func (l lines) Split(buf []byte, idle bool) (int, []byte, error) {
	if l.split != nil {
		return l.split(buf, idle)
	}
	if i := bytes.IndexByte(buf, '\n'); i >= 0 {
		return i + 1, buf[:i+1], nil
	}
	return 0, nil, nil
}

func (l lines) Idle() time.Duration { return l.idle }
func (l lines) Max() int            { return l.max }

func newConn(s Stream, f transport.Framer) *Conn {
	return New(s, f, NewPool(64), transport.Info{Transport: "script", Remote: "test"})
}

func TestMessagesDoNotDependOnHowTheBytesArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		messages := rapid.SliceOfN(rapid.StringMatching(`[a-z]{0,300}\n`), 1, 20).Draw(t, "messages")
		s := new(script)
		for rest := []byte(strings.Join(messages, "")); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			s.reads = append(s.reads, rest[:n])
			rest = rest[n:]
		}
		c := newConn(s, lines{max: 301})
		for _, want := range messages {
			if got, err := c.Read(); string(got) != want {
				t.Fatalf("read %q, %v, want %q", got, err, want)
			}
		}
		if _, err := c.Read(); !errors.Is(err, transport.ErrLost) {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func TestAMessageOverTheLimitIsRefusedWhetherItCameInOnePieceOrMany(t *testing.T) {
	const text = "123456789\n12345678\n"
	for _, size := range []int{1, len(text)} {
		s := new(script)
		for rest := []byte(text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			s.reads = append(s.reads, rest[:size])
		}
		c := newConn(s, lines{max: 9})
		if _, err := c.Read(); !errors.Is(err, transport.ErrTooLarge) {
			t.Errorf("in pieces of %d: %v", size, err)
		}
	}
}

func TestAPeersErrorNeverReadsLikeOurClose(t *testing.T) {
	library := fmt.Errorf("idle: %w", net.ErrClosed) // as QUIC's time-out has it
	for _, cause := range []error{library, os.ErrClosed, io.EOF, syscall.ECONNRESET, syscall.ETIMEDOUT, syscall.EIO} {
		c := newConn(&script{reads: []any{cause}, writeErr: cause}, lines{max: 9})
		_, readErr := c.Read()
		for _, err := range []error{readErr, c.Write(nil), c.Write(nil), c.Discard()} {
			if !errors.Is(err, transport.ErrLost) || errors.Is(err, cause) ||
				errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v becomes %v", cause, err)
			}
		}
	}
}

func TestAfterAFailedWriteNothingIsSent(t *testing.T) {
	s := &script{writeErr: os.ErrDeadlineExceeded}
	c := newConn(s, lines{max: 9})
	for range 2 {
		if err := c.Write([]byte("half")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
		s.writeErr = nil
	}
	if len(s.written) > 0 {
		t.Errorf("%q was sent behind half a message", s.written)
	}
}

func TestAStreamThatFailsBeforeItsDeadlineIsReadAgain(t *testing.T) {
	c := newConn(&script{reads: []any{os.ErrDeadlineExceeded, []byte("x\n")}}, lines{max: 9})
	_ = c.SetReadDeadline(time.Now().Add(time.Hour))
	if msg, err := c.Read(); string(msg) != "x\n" {
		t.Errorf("Read: %q, %v", msg, err)
	}
}

func TestBytesWithoutAnEndAreOfferedAsSilentWhenThePeerIsGone(t *testing.T) {
	f := lines{max: 9, idle: time.Hour, split: func(buf []byte, idle bool) (int, []byte, error) {
		if !idle {
			return 0, nil, nil
		}
		return len(buf), buf, nil
	}}
	c := newConn(&script{reads: []any{[]byte("last")}}, f)
	if msg, err := c.Read(); string(msg) != "last" {
		t.Errorf("Read: %q, %v", msg, err)
	}
	if _, err := c.Read(); !errors.Is(err, transport.ErrLost) {
		t.Errorf("Read: %v", err)
	}
}

func TestReadingDoesNotAllocate(t *testing.T) {
	s := new(script)
	c := newConn(s, lines{max: 9})
	piece := []byte("1\n2\n3\n4\n")
	reads := make([]any, 2)
	if n := testing.AllocsPerRun(100, func() {
		if len(s.reads) == 0 {
			s.reads = append(reads[:0], piece)
		}
		if _, err := c.Read(); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Errorf("%v allocations a message", n)
	}
}

func TestAMegabyteOfNoiseIsDroppedByteByByteInLinearTime(t *testing.T) {
	const lookAhead = 60 << 10
	left := 1 << 20
	noise := append(make([]byte, left), "good\n"...)
	// Drops as little as it may, and holds on to as much as it may.
	f := lines{max: 64 << 10, split: func(buf []byte, _ bool) (int, []byte, error) {
		switch {
		case len(buf) < min(left, lookAhead):
			return 0, nil, nil
		case left > 0:
			left--
			return 1, nil, nil
		}
		return lines{}.Split(buf, false)
	}}
	c := newConn(&script{reads: []any{noise}}, f)
	began := time.Now()
	if msg, err := c.Read(); string(msg) != "good\n" {
		t.Fatalf("Read: %.20q, %v", msg, err)
	}
	// Moving the rest for each byte would be 64 GB.
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if n := len(c.in.chunk.data); n > 4*f.max {
		t.Errorf("%d bytes borrowed for messages of %d", n, f.max)
	}
}

// FuzzAFramerThatBreaksItsContract: whatever a Framer answers, Read returns,
// and neither panics nor goes on for ever.
func FuzzAFramerThatBreaksItsContract(f *testing.F) {
	f.Add([]byte("some bytes\n"), []byte{0, 0, 0})
	f.Add([]byte("some bytes\n"), []byte{200, 1, 9, 2, 0, 2, 7, 0, 255, 3})
	f.Add(bytes.Repeat([]byte("x"), 500), []byte{1, 1, 0, 2})
	f.Fuzz(func(t *testing.T, input, answers []byte) {
		hostile := lines{max: 100, idle: time.Nanosecond, split: func(buf []byte, idle bool) (int, []byte, error) {
			if len(answers) < 2 {
				return 0, nil, nil
			}
			advance, kind := int(int8(answers[0])), answers[1]
			answers = answers[2:]
			switch kind % 4 {
			case 0:
				return advance, nil, nil
			case 1:
				return advance, buf, nil
			case 2:
				return advance, nil, transport.ErrFrame
			}
			return advance, []byte{}, nil
		}}
		c := newConn(&script{reads: []any{input}}, hostile)
		for range len(input) + len(answers) + 2 {
			if _, err := c.Read(); errors.Is(err, transport.ErrLost) {
				return
			}
		}
		t.Error("the end of the stream was never reached")
	})
}

func TestAnAnswerThatHasComeByTheDeadlineIsTakenHoweverLateItIsLookedFor(t *testing.T) {
	c, far := overSocket(t, 64)
	if _, err := far.WriteString("in time\n"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(-time.Second)) // as if nobody had run until then
	if msg, err := c.Read(); err != nil || string(msg) != "in time\n" {
		t.Errorf("%q, %v", msg, err)
	}
	// Only once: somebody who never stops talking has no deadline moved.
	if _, err := far.WriteString("too late\n"); err != nil {
		t.Fatal(err)
	}
	if msg, err := c.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v", msg, err)
	}
	_ = c.SetReadDeadline(time.Time{})
	if msg, err := c.Read(); err != nil || string(msg) != "too late\n" {
		t.Errorf("%q, %v", msg, err)
	}
}
