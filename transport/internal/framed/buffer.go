package framed

import "sync"

// Pool lends the memory that Conns read into. A Conn borrows it when bytes have
// arrived and returns it when they are consumed: ten thousand Conns that wait
// hold none. It may be used concurrently.
type Pool struct {
	smallest int
	classes  [sizeClasses]sync.Pool // class k holds chunks of smallest << k bytes
}

// sizeClasses are kept for reuse; what is larger is left to the collector.
const sizeClasses = 12

// NewPool takes the size of the smallest chunk: what one read may bring, in bytes.
func NewPool(smallest int) *Pool { return &Pool{smallest: smallest} }

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
	return &chunk{class: class, data: make([]byte, p.smallest<<class)}
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
	if b.chunk == nil {
		b.chunk = b.pool.lend(0)
	}
	if b.end == len(b.chunk.data) {
		b.makeRoom()
	}
	return b.chunk.data[b.end:]
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
