package framed

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/transport"
)

func TestABufferKeepsItsBytesAndMovesFew(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 1000
		b := Buffer{pool: NewPool(64)}
		var model []byte
		next, consumed, moved := byte(0), 0, 0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				if len(model) >= limit {
					continue
				}
				where, borrowed := b.start, b.chunk
				space := b.Space()
				if b.start != where || b.chunk != borrowed {
					moved += len(model)
				}
				n := rapid.IntRange(1, min(len(space), limit)).Draw(t, "arrive")
				for i := range n {
					space[i] = next
					model = append(model, next)
					next++
				}
				b.Extend(n)
			case 1:
				n := rapid.IntRange(0, len(model)).Draw(t, "consume")
				b.consume(n)
				model = model[n:]
				consumed += n
			case 2:
				b.Release()
				if len(model) == 0 && b.chunk != nil {
					t.Fatal("an empty buffer kept its memory")
				}
			}
			if !bytes.Equal(b.bytes(), model) {
				t.Fatalf("holds % x, want % x", b.bytes(), model)
			}
		}
		if most := consumed + 4*limit; moved > most {
			t.Fatalf("moved %d bytes to consume %d", moved, consumed)
		}
	})
}

func TestAConnAtRestHoldsItsLastMessageAndNothingElse(t *testing.T) {
	c, far := overSocket(t, 64<<10)
	for _, text := range []string{"first", "second", strings.Repeat("x", 3000), "last"} {
		if _, err := far.WriteString(text + "\n"); err != nil {
			t.Fatal(err)
		}
		msg, err := c.Read()
		if err != nil || string(msg) != text+"\n" {
			t.Fatalf("%q, %v", msg, err)
		}
		if held := len(c.in.chunk.data); held >= 2*max(len(msg), leastChunk) {
			t.Errorf("holds %d bytes for a message of %d", held, len(msg))
		}
	}
}

func TestAConnThatWaitsHoldsNoBuffer(t *testing.T) {
	c, far := overSocket(t, 64<<10)
	if _, err := far.WriteString("x\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if _, err := c.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if c.in.chunk != nil {
		t.Errorf("%d bytes", len(c.in.chunk.data))
	}
}

// overSocket is a Conn for lines over a socket in the kernel, and its other end.
func overSocket(t *testing.T, read int) (*Conn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { far.Close() })
	stream, err := NewDescriptor(os.NewFile(uintptr(fds[0]), "near"))
	if err != nil {
		t.Fatal(err)
	}
	c := New(stream, lines{max: 4000}, NewPool(read), transport.Info{})
	t.Cleanup(func() { c.Close() })
	return c, far
}
