package store

import (
	"bytes"
	"os"
	"testing"
)

func TestAWitnessContradictsOnlyAFileThatIsOlder(t *testing.T) {
	here := fileID{inode: 5, birth: 7}
	at := func(change func(*hearing, *about)) (hearing, about) {
		h := hearing{found: true, ok: true, testimony: testimony{epoch: 2, generation: 3, txid: 10, end: 100, self: here}, now: here}
		a := about{epoch: 2, previous: 1, generation: 3, witnessed: true}
		change(&h, &a)
		return h, a
	}
	for name, c := range map[string]struct {
		change func(*hearing, *about)
		is     bool
		lost   uint64
	}{
		"they agree":                              {func(*hearing, *about) {}, false, 0},
		"the witness lags":                        {func(h *hearing, _ *about) { h.txid = 9 }, false, 0},
		"it lags by a whole generation":           {func(h *hearing, _ *about) { h.generation, h.txid = 2, 500 }, false, 0},
		"it lags by an epoch":                     {func(h *hearing, _ *about) { h.epoch, h.txid = 1, 500 }, false, 0},
		"the file lacks a commit":                 {func(h *hearing, _ *about) { h.txid, h.end = 11, 107 }, true, 7},
		"the file is of a generation before":      {func(h *hearing, _ *about) { h.generation, h.txid = 4, 1 }, true, 0},
		"the file is of an epoch before":          {func(h *hearing, _ *about) { h.epoch = 9 }, true, 0},
		"there is no witness":                     {func(h *hearing, _ *about) { *h = hearing{} }, true, 0},
		"there never was one":                     {func(h *hearing, a *about) { *h, a.witnessed = hearing{}, false }, false, 0},
		"it can't be read":                        {func(h *hearing, _ *about) { *h = hearing{found: true} }, true, 0},
		"it was born at another time":             {func(h *hearing, _ *about) { h.now.birth++ }, true, 0},
		"another inode, where births don't count": {func(h *hearing, _ *about) { h.now = fileID{inode: 6} }, true, 0},
		"another inode after a mount":             {func(h *hearing, _ *about) { h.now.inode++ }, false, 0},
		"nothing is known of inodes":              {func(h *hearing, _ *about) { h.now = fileID{} }, false, 0},
	} {
		h, a := at(c.change)
		if reason, lost := h.contradicts(&a, 10, 100); (reason != "") != c.is || lost != c.lost {
			t.Errorf("%s: %q, %d lost", name, reason, lost)
		}
	}
}

// A power cut may tear the slot that is being written.
func TestATornSlotLeavesTheOneBefore(t *testing.T) {
	dir := t.TempDir()
	var w witness
	if err := w.make(dir, testimony{epoch: 1}, syncDir); err != nil {
		t.Fatal(err)
	}
	name := w.f.Name()
	for txid := range uint64(10) {
		w.write(&testimony{epoch: 1, txid: txid})
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := int(w.slot.count % 2 * slotGap)
		copy(whole[at+20:], bytes.Repeat([]byte{0xFF}, 30))
		torn := t.TempDir()
		if err := os.WriteFile(torn+"/"+WitnessName, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		var other witness
		h, err := other.hear(torn)
		if err != nil || !h.ok || txid > 0 && h.txid != txid-1 {
			t.Errorf("after %d: %+v, %v", txid, h, err)
		}
		if err := other.close(); err != nil {
			t.Error(err)
		}
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

func TestWritingToAWitnessAllocatesNothing(t *testing.T) {
	var w witness
	if err := w.make(t.TempDir(), testimony{epoch: 1}, syncDir); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	s := &Store{witness: w}
	if n := testing.AllocsPerRun(100, func() { s.testify(1, 2) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzTestimony(f *testing.F) {
	var b [slotSize]byte
	(&testimony{count: 1, epoch: 2}).put(b[:])
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := parseTestimony(b)
		if !ok {
			return
		}
		var again [slotSize]byte
		if got.put(again[:]); !bytes.Equal(again[:], b[:slotSize]) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
