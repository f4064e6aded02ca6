package disk

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

const images = 300 // seeds tried for what must hold always, or happen at some time

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// sync makes a file or directory durable.
func durable(t testing.TB, d *Disk, ids ...uint64) {
	t.Helper()
	for _, id := range ids {
		if _, err := d.sync(id); err != nil {
			t.Fatal(err)
		}
	}
}

func file(im *Image, name string) []byte {
	id, there := im.nodes[rootID].entries[name]
	if !there {
		return nil
	}
	b := make([]byte, im.nodes[id].size)
	im.nodes[id].read(0, b)
	return b
}

// seen collects what is different in the images of a cut.
func seen[T comparable](d *Disk, what func(*Image) T) map[T]int {
	trace := d.Trace()
	cutter := trace.Cutter()
	found := make(map[T]int)
	for seed := range uint64(images) {
		found[what(cutter.Image(trace.Len(), seed))]++
	}
	return found
}

func TestWhatIsSyncedIsInEveryImageAndTheRestInSome(t *testing.T) {
	d := New(nil, 1)
	f := must[uint64](t)(d.create(rootID, "f", false))
	old, fresh := bytes.Repeat([]byte("o"), 8192), bytes.Repeat([]byte("n"), 8192)
	if err := d.write(f, 100, old); err != nil {
		t.Fatal(err)
	}
	durable(t, d, f, rootID)
	if err := d.write(f, 0, fresh); err != nil {
		t.Fatal(err)
	}
	if err := d.write(f, 8292, fresh[:1000]); err != nil {
		t.Fatal(err)
	}
	states := seen(d, func(im *Image) string {
		b := file(im, "f")
		if len(b) < 8292 || !slices.Equal(b[8192:8292], old[:100]) {
			t.Fatalf("%d bytes are left of what was synced", len(b))
		}
		news := bytes.Count(b[:8192], []byte("n"))
		switch {
		case news == 0 && len(b) == 8292:
			return "nothing"
		case news == 0:
			return "size without data"
		case news == 8192:
			return "all"
		case news%sectorSize != 0:
			t.Fatalf("a sector is torn: %d bytes", news)
		}
		return "torn"
	})
	if len(states) != 4 {
		t.Errorf("not everything happens: %v", states)
	}
}

func TestADirectoryKeepsTheOrderOfItsChanges(t *testing.T) {
	d := New(nil, 1)
	other := must[uint64](t)(d.create(rootID, "dir", true))
	durable(t, d, rootID)
	for _, name := range []string{"1", "2", "3"} {
		must[uint64](t)(d.create(rootID, name, false))
	}
	must[uint64](t)(d.create(other, "4", false))
	if err := errors.Join(d.rename(rootID, "3", other, "5"), d.remove(rootID, "1")); err != nil {
		t.Fatal(err)
	}
	names := func(im *Image) (s string) {
		root := im.nodes[rootID].entries
		for _, dir := range []map[string]uint64{root, im.nodes[other].entries} {
			s += "|"
			for _, name := range sortedNames(dir) {
				s += name
			}
		}
		return s
	}
	states := seen(d, names)
	for state := range states {
		switch state {
		case "|dir|", "|1dir|", "|12dir|", "|123dir|", "|dir|4", "|1dir|4", "|12dir|4", "|123dir|4", "|12dir|45", "|2dir|45":
		default:
			t.Errorf("that can't be: %s", state)
		}
	}
	if len(states) < 8 {
		t.Errorf("too little happens: %v", states)
	}
	durable(t, d, other)
	for state := range seen(d, names) {
		if state != "|12dir|45" && state != "|2dir|45" {
			t.Errorf("the other directory was synced, and with it the rename into it: %s", state)
		}
	}
}

func TestAFailedSyncLosesSectorsForGood(t *testing.T) {
	d := New(nil, 1)
	f := must[uint64](t)(d.create(rootID, "f", false))
	if err := d.write(f, 0, bytes.Repeat([]byte("o"), 64*sectorSize)); err != nil {
		t.Fatal(err)
	}
	durable(t, d, f, rootID)
	d.Inject(Fault{Kinds: Sync, Nth: 1, Count: 1, Err: syscall.EIO})
	if err := d.write(f, 0, bytes.Repeat([]byte("n"), 64*sectorSize)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.sync(f); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	durable(t, d, f)
	if d.Mend() != 1 || d.Mend() != 0 {
		t.Error("one fault was met")
	}
	states := seen(d, func(im *Image) int { return bytes.Count(file(im, "f"), []byte("n")) })
	live := make([]byte, 64*sectorSize)
	d.nodes[f].read(0, live)
	news := bytes.Count(live, []byte("n"))
	if news == 0 || news == len(live) || len(states) != 1 || states[news] == 0 {
		t.Errorf("%d of the new bytes are left on the disk, in the images %v", news, states)
	}
}

func TestFaultsComeWhenTheyAreDue(t *testing.T) {
	d := New(nil, 1)
	d.Inject(Fault{Kinds: Create | Unlink, Nth: 2, Count: 2, Err: syscall.ENOSPC})
	for i, want := range []error{nil, syscall.ENOSPC, syscall.ENOSPC, nil} {
		if _, err := d.create(rootID, string(rune('a'+i)), false); !errors.Is(err, want) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// A disk that is synced after each step is the same as its image, whatever the
// steps are.
func TestTheImageOfASyncedDiskIsTheDisk(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		d := New(nil, 1)
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "name")
			id, there := d.nodes[rootID].entries[name]
			off, size := rapid.Int64Range(0, 20000).Draw(r, "off"), rapid.IntRange(1, 10000).Draw(r, "size")
			var err error
			switch what := rapid.IntRange(0, 4).Draw(r, "what"); {
			case !there:
				_, err = d.create(rootID, name, false)
			case what == 0:
				err = d.remove(rootID, name)
			case what == 1:
				err = d.rename(rootID, name, rootID, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "to"))
			case what == 2:
				err = d.resize(id, off)
			default:
				err = d.write(id, off, bytes.Repeat([]byte{byte(size)}, size))
			}
			if err != nil {
				r.Fatal(err)
			}
		}
		for id := range d.nodes {
			durable(t, d, id)
		}
		trace := saveAndLoad(r, d.Trace(), filepath.Join(dir, "trace"))
		im := trace.Cutter().Image(trace.Len(), rapid.Uint64().Draw(r, "seed"))
		again := New(im, 2)
		for name, id := range d.nodes[rootID].entries {
			n := d.nodes[id]
			want, got := make([]byte, n.size), file(im, name)
			n.read(0, want)
			if !bytes.Equal(want, got) {
				r.Fatalf("%s differs: %d bytes, want %d", name, len(got), len(want))
			}
			if again.nodes[id].size != n.size {
				r.Fatalf("a disk made of the image differs in %s", name)
			}
		}
		if len(im.nodes[rootID].entries) != len(d.nodes[rootID].entries) {
			r.Fatalf("%v, want %v", im.nodes[rootID].entries, d.nodes[rootID].entries)
		}
	})
}

func saveAndLoad(r *rapid.T, t *Trace, path string) *Trace {
	if err := t.Save(path); err != nil {
		r.Fatal(err)
	}
	again, err := Load(path)
	if err != nil {
		r.Fatal(err)
	}
	if again.Describe(again.Len(), 1000) != t.Describe(t.Len(), 1000) {
		r.Fatal("it reads differently")
	}
	return again
}
