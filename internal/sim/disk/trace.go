package disk

import (
	"fmt"
	"strings"
)

type opKind uint8

const (
	opWrite   opKind = iota // node, off, data
	opResize                // node, size
	opSync                  // node: a file or a directory
	opDropped               // node, lost: a failed sync. What was not synced has got to the disk, but for lost
	opLink                  // dir, name, node, isDir: a new file or directory
	opUnlink                // dir, name
	opRename                // dir, name, dir2, name2, node
	opMark                  // name is its text
)

// op has its fields exported for encoding/gob.
type op struct {
	Kind        opKind
	IsDir       bool
	Node        uint64
	Off, Size   int64
	Data        []byte
	Lost        []extent
	Dir, Dir2   uint64
	Name, Name2 string
}

// extent is a sector as it is on the disk.
type extent struct {
	Off  int64
	Data [sectorSize]byte
}

// Trace is all that happened to a disk, in order. It does not change.
type Trace struct {
	base *Image
	ops  []op
}

// Len is the number of operations and marks. A cut at n comes before the n-th,
// counted from 0.
func (t *Trace) Len() int { return len(t.ops) }

// Marks calls each with the marks before a cut, in order.
func (t *Trace) Marks(cut int, each func(at int, text string)) {
	for i := range t.ops[:cut] {
		if t.ops[i].Kind == opMark {
			each(i, t.ops[i].Name)
		}
	}
}

// Find returns where operations of these kinds are, so that cuts can be made in
// their neighbourhood. Read finds nothing: reads leave no trace.
func (t *Trace) Find(kinds Kind) (places []int) {
	for i := range t.ops {
		if t.ops[i].of()&kinds != 0 {
			places = append(places, i)
		}
	}
	return places
}

func (o *op) of() Kind {
	switch o.Kind {
	case opWrite:
		return Write
	case opResize:
		return Resize
	case opSync, opDropped:
		return Sync | SyncDir
	case opLink:
		return Create
	case opUnlink:
		return Unlink
	case opRename:
		return Rename
	case opMark:
	}
	return 0
}

// Describe lists the last n operations before a cut.
func (t *Trace) Describe(cut, n int) string {
	var b strings.Builder
	for i := max(0, cut-n); i < cut; i++ {
		fmt.Fprintf(&b, "%6d %s\n", i, t.ops[i].text())
	}
	return b.String()
}

func (o *op) text() string {
	switch o.Kind {
	case opWrite:
		return fmt.Sprintf("write   file %d at %d, %d bytes", o.Node, o.Off, len(o.Data))
	case opResize:
		return fmt.Sprintf("resize  file %d to %d", o.Node, o.Size)
	case opSync:
		return fmt.Sprintf("sync    %d", o.Node)
	case opDropped:
		return fmt.Sprintf("sync    %d FAILED, %d sectors lost", o.Node, len(o.Lost))
	case opLink:
		return fmt.Sprintf("create  %s in %d: %d", o.Name, o.Dir, o.Node)
	case opUnlink:
		return fmt.Sprintf("unlink  %s in %d", o.Name, o.Dir)
	case opRename:
		return fmt.Sprintf("rename  %s in %d to %s in %d", o.Name, o.Dir, o.Name2, o.Dir2)
	case opMark:
		return "mark    " + o.Name
	}
	return "?"
}
