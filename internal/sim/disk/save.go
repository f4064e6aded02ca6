package disk

import (
	"compress/flate"
	"encoding/gob"
	"errors"
	"os"
)

// saved is a trace in a file.
type saved struct {
	Base map[uint64]savedNode
	Ops  []op
}

type savedNode struct {
	Dir     bool
	Entries map[string]uint64
	Pages   map[int64]*[pageSize]byte
	Size    int64
}

// Save writes the trace into a file, for Load.
func (t *Trace) Save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	s := saved{Base: make(map[uint64]savedNode), Ops: t.ops}
	for id, n := range t.base.nodes {
		s.Base[id] = savedNode{Dir: n.entries != nil, Entries: n.entries, Pages: n.pages, Size: n.size}
	}
	z, err := flate.NewWriter(f, flate.BestSpeed)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(gob.NewEncoder(z).Encode(s), z.Close(), f.Close())
}

// Load reads what Save has written: the same cut and seed give the same image.
func Load(path string) (*Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var s saved
	if err := gob.NewDecoder(flate.NewReader(f)).Decode(&s); err != nil {
		return nil, err
	}
	t := &Trace{base: &Image{nodes: make(map[uint64]*imageNode)}, ops: s.Ops}
	for id, n := range s.Base {
		if n.Dir && n.Entries == nil {
			n.Entries = make(map[string]uint64)
		}
		t.base.nodes[id] = &imageNode{content: content{pages: n.Pages, size: n.Size}, entries: n.Entries}
	}
	return t, nil
}
