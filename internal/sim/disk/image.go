package disk

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Image is what is on a disk that nobody uses. It does not change.
type Image struct {
	nodes map[uint64]*imageNode
}

type imageNode struct {
	content
	entries map[string]uint64 // of a directory; nil: a file
}

// WriteTo puts the files of one of its directories, or all if within is ".", into
// a directory outside, which is best in memory and must be empty. A directory that
// the image does not have is empty.
func (im *Image) WriteTo(dir, within string) error {
	id := uint64(rootID)
	for _, name := range strings.Split(filepath.Clean(within), "/") {
		if name != "." {
			id = im.nodes[id].entries[name]
		}
		if im.nodes[id] == nil {
			return os.MkdirAll(dir, 0o750)
		}
	}
	return im.write(id, dir)
}

func (im *Image) write(id uint64, path string) error {
	n := im.nodes[id]
	if n.entries == nil {
		return n.writeFile(path)
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	for name, child := range n.entries {
		if err := im.write(child, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// writeFile leaves holes where nothing is.
func (n *imageNode) writeFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer f.Close()
	list := make([]int64, 0, len(n.pages))
	for i := range n.pages {
		list = append(list, i)
	}
	slices.Sort(list)
	var run []byte
	for k, i := range list {
		run = append(run, n.pages[i][:]...)
		if k+1 < len(list) && list[k+1] == i+1 && len(run) < 1<<20 {
			continue
		}
		if _, err := f.WriteAt(run, (i+1)*pageSize-int64(len(run))); err != nil {
			return err
		}
		run = run[:0]
	}
	return f.Truncate(n.size)
}

func sortedNames(entries map[string]uint64) []string {
	return slices.Sorted(maps.Keys(entries))
}
