package framed

import (
	"math/bits"
	"sync"
)

// Pool lends the memory that Conns read into. A Conn borrows it when bytes have
// arrived and returns it when they are consumed, but for a chunk no larger than
// its last message: ten thousand Conns that wait, or whose owner does something
// else, hold next to none. It may be used concurrently.
type Pool struct {
	read    int                    // class of the chunks to read into
	classes [sizeClasses]sync.Pool // class k holds chunks of leastChunk << k bytes
}

const (
	// leastChunk takes a short answer, such as one of Modbus.
	leastChunk = 32
	// sizeClasses are kept for reuse; what is larger is left to the collector.
	sizeClasses = 23
)

// NewPool takes how much one read may bring at least, in bytes.
func NewPool(read int) *Pool { return &Pool{read: classOf(read)} }

// classOf is the class of the smallest chunk that takes n bytes.
func classOf(n int) int { return bits.Len(uint(max(n-1, 0) / leastChunk)) }

type chunk struct {
	class int
	data  []byte
}

func (p *Pool) lend(class int) *chunk {
	if class < sizeClasses {
		if c, ok := p.classes[class].Get().(*chunk); ok {
			return c
		}
	}
	return &chunk{class: class, data: make([]byte, leastChunk<<class)}
}

func (p *Pool) takeBack(c *chunk) {
	if c.class < sizeClasses {
		p.classes[c.class].Put(c)
	}
}

// Buffer holds the bytes that were read and not yet consumed. A byte is moved
// only when at least as many have been consumed since the last move, or the
// memory doubles: the work stays linear in the bytes, however few of them are
// consumed at a time.
type Buffer struct {
	pool       *Pool
	chunk      *chunk // nil while nothing is borrowed
	start, end int    // the unconsumed bytes in it
}

// NewBuffer makes one that borrows from p.
func NewBuffer(p *Pool) *Buffer { return &Buffer{pool: p} }

// Space returns where to put the next bytes, at least one; it borrows memory
// when there is none. Whoever then waits instead of reading calls Release first.
func (b *Buffer) Space() []byte {
	if b.size() == 0 {
		b.use(b.pool.read)
	}
	if b.end == len(b.chunk.data) {
		b.makeRoom()
	}
	return b.chunk.data[b.end:]
}

// use has b hold an empty chunk of a class, or a larger one.
func (b *Buffer) use(class int) {
	if b.chunk != nil && b.chunk.class < class {
		b.Release()
	}
	if b.chunk == nil {
		b.chunk = b.pool.lend(class)
	}
}

// keep returns the memory if nothing is in it but msg, which has been consumed, and
// msg in a chunk that is no larger than it need be. It moves bytes once for each
// read at most.
func (b *Buffer) keep(msg []byte) []byte {
	class := classOf(len(msg))
	if b.size() > 0 || b.chunk == nil || b.chunk.class <= class {
		return msg
	}
	small := b.pool.lend(class)
	n := copy(small.data, msg)
	b.pool.takeBack(b.chunk)
	b.chunk = small
	return small.data[:n]
}

// Release returns the memory if nothing is in it.
func (b *Buffer) Release() {
	if b.chunk != nil && b.size() == 0 {
		b.pool.takeBack(b.chunk)
		b.chunk = nil
		b.start, b.end = 0, 0
	}
}

func (b *Buffer) makeRoom() {
	old := b.chunk
	if b.start < b.size() {
		b.chunk = b.pool.lend(old.class + 1)
	}
	b.end = copy(b.chunk.data, old.data[b.start:b.end])
	b.start = 0
	if b.chunk != old {
		b.pool.takeBack(old)
	}
}

func (b *Buffer) size() int { return b.end - b.start }

// bytes stay where they are until the next Space or Release.
func (b *Buffer) bytes() []byte {
	if b.chunk == nil {
		return nil
	}
	return b.chunk.data[b.start:b.end]
}

// Extend says that the first n bytes of Space have been filled.
func (b *Buffer) Extend(n int) { b.end += n }

// Take moves bytes into p and returns how many.
func (b *Buffer) Take(p []byte) int {
	n := copy(p, b.bytes())
	b.consume(n)
	return n
}

func (b *Buffer) consume(n int) {
	b.start += n
	if b.start == b.end {
		b.start, b.end = 0, 0
	}
}
