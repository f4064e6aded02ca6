package disk

import (
	"maps"
	"math"
	"math/rand/v2"
)

// Cutter makes images from one trace. It is quickest when the cuts rise. One
// goroutine may use it at a time.
type Cutter struct {
	trace *Trace
	at    int                 // operations that the state below knows
	nodes map[uint64]*cutNode // as they are on the disk for certain
	links []op                // changes to directories that are not synced
}

type cutNode struct {
	content
	entries map[string]uint64
	pending []op // writes and changes of size that are not synced
}

// Cutter of the trace.
func (t *Trace) Cutter() *Cutter {
	c := &Cutter{trace: t}
	c.reset()
	return c
}

func (c *Cutter) reset() {
	c.at, c.links, c.nodes = 0, nil, make(map[uint64]*cutNode)
	for id, n := range c.trace.base.nodes {
		c.nodes[id] = &cutNode{content: n.clone(), entries: maps.Clone(n.entries)}
	}
}

// advance takes in what happened before a cut.
func (c *Cutter) advance(cut int) {
	if cut < c.at {
		c.reset()
	}
	for ; c.at < cut; c.at++ {
		o := c.trace.ops[c.at]
		switch o.Kind {
		case opWrite, opResize:
			n := c.nodes[o.Node]
			n.pending = append(n.pending, o)
		case opSync:
			if n := c.nodes[o.Node]; n.entries == nil {
				n.settle()
			} else {
				c.settleDir(o.Node)
			}
		case opDropped:
			c.nodes[o.Node].drop(o.Lost)
		case opLink:
			fresh := &cutNode{content: newContent()}
			if o.IsDir {
				fresh.entries = make(map[string]uint64)
			}
			c.nodes[o.Node] = fresh
			c.links = append(c.links, o)
		case opUnlink, opRename:
			c.links = append(c.links, o)
		case opMark:
		}
	}
}

// settle makes all that is pending certain.
func (n *cutNode) settle() {
	for _, o := range n.pending {
		if o.Kind == opWrite {
			n.write(o.Off, o.Data)
		} else {
			n.resize(o.Size)
		}
	}
	n.pending = nil
}

// drop makes the data certain, as a failed sync left it, but not the size.
func (n *cutNode) drop(lost []extent) {
	var sizes []op
	durable := n.size
	for _, o := range n.pending {
		if o.Kind == opWrite {
			n.put(o.Off, o.Data)
			o = op{Kind: opResize, Node: o.Node, Size: max(n.size, o.Off+int64(len(o.Data)))}
		}
		n.size = o.Size
		sizes = append(sizes, o)
	}
	for i := range lost {
		n.put(lost[i].Off, lost[i].Data[:])
	}
	n.size, n.pending = durable, sizes
}

// settleDir makes the changes to a directory certain.
func (c *Cutter) settleDir(dir uint64) {
	limits := map[uint64]int{dir: len(c.links)}
	c.widen(limits)
	rest := c.links[:0:0]
	for i, o := range c.links {
		if i < limits[o.Dir] {
			apply(o, func(id uint64) map[string]uint64 { return c.nodes[id].entries })
		} else {
			rest = append(rest, o)
		}
	}
	c.links = rest
}

// widen moves the limits up until each rename between two directories is within
// both or neither of theirs. A limit counts c.links.
func (c *Cutter) widen(limits map[uint64]int) {
	for changed := true; changed; {
		changed = false
		for i, o := range c.links {
			if o.Kind != opRename || o.Dir == o.Dir2 {
				continue
			}
			if a, b := limits[o.Dir], limits[o.Dir2]; (i < a) != (i < b) {
				limits[o.Dir], limits[o.Dir2] = max(a, i+1), max(b, i+1)
				changed = true
			}
		}
	}
}

func apply(o op, entries func(dir uint64) map[string]uint64) {
	switch o.Kind {
	case opLink:
		entries(o.Dir)[o.Name] = o.Node
	case opUnlink:
		delete(entries(o.Dir), o.Name)
	case opRename:
		delete(entries(o.Dir), o.Name)
		entries(o.Dir2)[o.Name2] = o.Node
	case opWrite, opResize, opSync, opDropped, opMark:
	}
}

// Image is what a power cut can leave, by the seed.
func (c *Cutter) Image(cut int, seed uint64) *Image {
	c.advance(cut)
	random := rand.New(rand.NewPCG(seed, uint64(cut)))
	im := &Image{nodes: make(map[uint64]*imageNode)}
	limits := c.chooseLinks(random)
	entries := func(id uint64) map[string]uint64 {
		if im.nodes[id] == nil {
			im.nodes[id] = &imageNode{entries: maps.Clone(c.nodes[id].entries)}
		}
		return im.nodes[id].entries
	}
	for i, o := range c.links {
		if i < limits[o.Dir] {
			apply(o, entries)
		}
	}
	stale := random.IntN(4) == 0
	var fill func(id uint64)
	fill = func(id uint64) {
		n := c.nodes[id]
		if n.entries == nil {
			im.nodes[id] = &imageNode{content: c.chooseContent(n, random, stale)}
			return
		}
		for _, name := range sortedNames(entries(id)) {
			fill(entries(id)[name])
		}
	}
	fill(rootID)
	return im
}

// chooseLinks says how many of the changes to each directory are there.
func (c *Cutter) chooseLinks(random *rand.Rand) map[uint64]int {
	limits := make(map[uint64]int)
	common, together := upTo(random, len(c.links)), random.IntN(2) == 0
	for _, o := range c.links {
		for _, dir := range []uint64{o.Dir, o.Dir2} {
			if _, chosen := limits[dir]; !chosen {
				limits[dir] = common
				if !together {
					limits[dir] = upTo(random, len(c.links))
				}
			}
		}
	}
	c.widen(limits)
	return limits
}

// upTo is often 0 or n.
func upTo(random *rand.Rand, n int) int {
	switch random.IntN(3) {
	case 0:
		return 0
	case 1:
		return n
	}
	return random.IntN(n + 1)
}

// chooseContent says what of a file is there.
func (c *Cutter) chooseContent(n *cutNode, random *rand.Rand, stale bool) content {
	out := n.clone()
	if len(n.pending) == 0 {
		return out
	}
	lands := chooseWrites(random, len(n.pending))
	sizes := upTo(random, len(n.pending))
	size := n.size
	for i, o := range n.pending {
		if o.Kind == opResize {
			if i < sizes {
				if o.Size < size {
					out.resize(o.Size)
				}
				size = o.Size
			}
			continue
		}
		for at := int64(0); at < int64(len(o.Data)); {
			to := min(int64(len(o.Data)), (o.Off+at)/sectorSize*sectorSize+sectorSize-o.Off)
			switch {
			case lands(i):
				out.put(o.Off+at, o.Data[at:to])
			case stale && out.pages[(o.Off+at)/pageSize] == nil:
				c.smear(&out, (o.Off+at)/pageSize, random)
			}
			at = to
		}
		if i < sizes {
			size = max(size, o.Off+int64(len(o.Data)))
		}
	}
	out.resize(size)
	return out
}

// smear puts what was once written elsewhere into a page that nothing has got to.
func (c *Cutter) smear(out *content, page int64, random *rand.Rand) {
	for range 10 {
		if o := &c.trace.ops[random.IntN(c.at)]; o.Kind == opWrite && len(o.Data) >= pageSize {
			from := random.Int64N(int64(len(o.Data))/pageSize) * pageSize
			out.put(page*pageSize, o.Data[from:from+pageSize])
			return
		}
	}
}

// chooseWrites returns which sectors land: it is asked for each sector of each of n
// writes, in order.
func chooseWrites(random *rand.Rand, n int) func(write int) bool {
	sectors := func(p float64) bool { return random.Float64() < p }
	one := random.IntN(n)
	switch random.IntN(8) {
	case 0:
		return func(int) bool { return false }
	case 1:
		return func(int) bool { return true }
	case 2: // in order, the last one torn
		return func(i int) bool { return i < one || i == one && sectors(0.5) }
	case 3: // whole writes
		whole := make([]bool, n)
		for i := range whole {
			whole[i] = sectors(0.5)
		}
		return func(i int) bool { return whole[i] }
	case 4: // all but one
		return func(i int) bool { return i != one }
	case 5: // only one
		return func(i int) bool { return i == one }
	case 6: // most sectors
		return func(int) bool { return sectors(0.95) }
	}
	p := math.Sqrt(random.Float64())
	return func(int) bool { return sectors(p) }
}
