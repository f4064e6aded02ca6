package framed

import (
	"bytes"
	"errors"
	"os"
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

func TestAConnThatWaitsHoldsNoBuffer(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(fds[1]), "far")
	defer far.Close()
	stream, err := NewDescriptor(os.NewFile(uintptr(fds[0]), "near"))
	if err != nil {
		t.Fatal(err)
	}
	c := New(stream, lines{max: 9}, NewPool(64<<10), transport.Info{})
	defer c.Close()
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
