package disk

import "maps"

// content is what a file holds: pages that never change, and a size. A page that
// is not there is a hole.
type content struct {
	pages map[int64]*[pageSize]byte
	size  int64
}

func newContent() content { return content{pages: make(map[int64]*[pageSize]byte)} }

func (c *content) clone() content { return content{pages: maps.Clone(c.pages), size: c.size} }

// put stores data without a look at the size.
func (c *content) put(off int64, data []byte) {
	if c.pages == nil {
		c.pages = make(map[int64]*[pageSize]byte)
	}
	for len(data) > 0 {
		at := off % pageSize
		fresh := new([pageSize]byte)
		if old := c.pages[off/pageSize]; old != nil {
			*fresh = *old
		}
		n := copy(fresh[at:], data)
		c.pages[off/pageSize] = fresh
		data, off = data[n:], off+int64(n)
	}
}

func (c *content) write(off int64, data []byte) {
	c.put(off, data)
	c.size = max(c.size, off+int64(len(data)))
}

// read fills b, with zeros where nothing is, and returns how much of it is within
// the size.
func (c *content) read(off int64, b []byte) int {
	n := int(min(max(c.size-off, 0), int64(len(b))))
	clear(b)
	for rest := b[:n]; len(rest) > 0; {
		at := off % pageSize
		step := min(int64(len(rest)), pageSize-at)
		if p := c.pages[off/pageSize]; p != nil {
			copy(rest[:step], p[at:])
		}
		rest, off = rest[step:], off+step
	}
	return n
}

// resize forgets what is beyond size.
func (c *content) resize(size int64) {
	for i, p := range c.pages {
		switch at := i * pageSize; {
		case at >= size:
			delete(c.pages, i)
		case at+pageSize > size:
			fresh := new([pageSize]byte)
			copy(fresh[:size-at], p[:])
			c.pages[i] = fresh
		}
	}
	c.size = size
}
