package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/record"
)

// specimen is a queue's file with all that a file can hold, and what is in it.
type specimen struct {
	file, witness []byte
	epoch         record.Epoch
	page          int
	records       []specimenRecord
	letters       map[string]string
	channel       uint64
	end           uint64
}

type specimenRecord struct {
	device    string
	seq       uint64
	body      []byte
	delivered bool
	frame     span // of its bytes in the file
	segment   span // of its segment
	frames    span // of those of its segment's that lead to it
	inline    bool // its segment is inside a page, which leads to it
}

// span is a stretch of the file's bytes.
type span struct{ from, to int }

func (s span) meets(other span) bool { return s.from < other.to && other.from < s.to }

var specimenConfig = Config{MaxSize: 8 << 20}

// makeSpecimen fills a queue in many commits: with records of all sizes from several
// devices, in folded segments and others, a mailbox that changes, a cursor that has
// got half-way, and old pages of all of that.
func makeSpecimen(t *testing.T, devices int) *specimen {
	t.Helper()
	dir := t.TempDir()
	r := newRig(t, dir, disk{})
	sp := &specimen{epoch: r.Epoch(), page: r.db.Info().PageSize, letters: make(map[string]string)}
	channel, err := r.Channel(ChannelKey{Sender: "peer", Epoch: 7, Channel: "main"})
	if err != nil {
		t.Fatal(err)
	}
	seqs := make(map[string]uint64)
	commit := func(i, n, size int) {
		b := Batch{}
		if i%3 == 0 {
			b.Channel, b.Previous = channel, sp.channel
		}
		for j := range n {
			device := fmt.Sprint("device-", (i*7+j)%devices)
			seqs[device]++
			source, err := r.Source(SourceKey{Device: device, Stream: "s"})
			if err != nil {
				t.Fatal(err)
			}
			seed := sha256.Sum256(fmt.Append(nil, device, seqs[device]))
			body := bytes.Repeat(seed[:], 1+size/len(seed))
			e := Entry{Source: source, Time: time.Unix(int64(1000+i), 0), Body: body}
			if b.Channel != nil {
				sp.channel++
				e.Number = sp.channel
			}
			b.Entries = append(b.Entries, e)
			sp.records = append(sp.records, specimenRecord{device: device, seq: seqs[device], body: body})
		}
		c, err := r.Append(r.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		r.wait(c)
	}
	for i := range 260 {
		commit(i, 1+i%3, []int{32, 64, 300, 3000}[i%4])
		key := fmt.Sprint("command/", i%8)
		sp.letters[key] = fmt.Sprint("letter ", i)
		r.put(key, sp.letters[key])
		if i%11 == 0 {
			c, err := r.Mailbox().Delete(key)
			if err != nil {
				t.Fatal(err)
			}
			delete(sp.letters, key)
			_ = c
		}
		if i == 100 {
			items, err := r.cursor.Read(r.Context(), nil, 60, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			r.cursor.Ack(items[len(items)-1].Position)
			for j := range items {
				sp.records[j].delivered = true
			}
		}
	}
	for i := range 6 {
		commit(300+i, 40, 2000)
	}
	commit(400, 2, 64)
	r.stop()
	sp.end = uint64(len(sp.records))
	if sp.file, err = os.ReadFile(r.path); err != nil {
		t.Fatal(err)
	}
	if sp.witness, err = os.ReadFile(filepath.Join(dir, WitnessName)); err != nil {
		t.Fatal(err)
	}
	sp.locate(t)
	return sp
}

// locate finds out where in the file each record is.
func (sp *specimen) locate(t *testing.T) {
	t.Helper()
	w, err := readWreck(bytes.NewReader(sp.file), int64(len(sp.file)))
	if err != nil || !w.whole || len(w.broken) > 0 {
		t.Fatalf("%v, %+v", err, w.broken)
	}
	for _, seg := range w.segments {
		if !seg.now {
			continue
		}
		value := sp.file[seg.at : seg.at+seg.size]
		h, _ := parseHeader(value)
		page := int(seg.at) / sp.page * sp.page
		at := int(seg.at) + headerSize
		var e envelope
		for i := range int(h.count) {
			size := e.take(sp.file[at:])
			r := &sp.records[int(h.first)+i-1]
			if !bytes.Equal(e.body, r.body) {
				t.Fatal("the specimen's records are not where they should be")
			}
			r.segment = span{int(seg.at), int(seg.at + seg.size)}
			r.frame, r.frames = span{at, at + size}, span{page, int(seg.at) + headerSize}
			if r.inline = int(seg.at)-page > 64; r.inline {
				r.frames.to = page + sp.page
			}
			at += size
		}
	}
}

// wound is what a test did to the file.
type wound struct {
	file []byte
	hurt []span
	// swapped: pages stand where others belong. In the middle of a long segment, where
	// pages have no headers, good records of elsewhere can't be told from its own.
	swapped bool
}

func (w *wound) hit(s span) bool { return slices.ContainsFunc(w.hurt, s.meets) }

// inflict damages the file in one of the ways that files are damaged.
func (sp *specimen) inflict(r *rapid.T, w *wound) {
	used := len(bytes.TrimRight(sp.file, "\x00"))
	pages := used / sp.page
	switch rapid.IntRange(0, 6).Draw(r, "kind") {
	case 0: // flipped bits
		for range rapid.IntRange(1, 20).Draw(r, "flips") {
			at := rapid.IntRange(0, used-1).Draw(r, "at")
			if at >= len(w.file) {
				continue
			}
			w.file[at] ^= 1 << rapid.IntRange(0, 7).Draw(r, "bit")
			w.hurt = append(w.hurt, span{at, at + 1})
		}
	case 1: // a torn page
		unit := rapid.SampledFrom([]int{512, sp.page}).Draw(r, "unit")
		at := rapid.IntRange(0, used/unit).Draw(r, "sector") * unit
		w.fill(at, unit, func(i int) byte { return byte(i * 31) })
	case 2: // zeroes
		at := rapid.IntRange(0, used-1).Draw(r, "at")
		w.fill(at, rapid.IntRange(1, 100_000).Draw(r, "length"), func(int) byte { return 0 })
	case 3: // cut short
		to := rapid.IntRange(0, len(w.file)).Draw(r, "to")
		w.hurt = append(w.hurt, span{to, len(sp.file)})
		w.file = w.file[:to]
	case 4: // pages that belong elsewhere
		a, b := rapid.IntRange(0, pages-1).Draw(r, "a")*sp.page, rapid.IntRange(0, pages-1).Draw(r, "b")*sp.page
		if max(a, b)+sp.page > len(w.file) {
			return
		}
		w.swapped = true
		was := bytes.Clone(w.file[a : a+sp.page])
		copy(w.file[a:], w.file[b:b+sp.page])
		copy(w.file[b:], was)
		w.hurt = append(w.hurt, span{a, a + sp.page}, span{b, b + sp.page})
	case 5: // the meta pages
		at := rapid.IntRange(0, 1).Draw(r, "meta") * sp.page
		w.fill(at, rapid.SampledFrom([]int{40, 200, 2 * sp.page}).Draw(r, "length"), func(int) byte { return 0xFF })
	case 6: // a bit of the newest meta page, which hides the last commit
		w.fill(rapid.IntRange(0, 1).Draw(r, "meta")*sp.page+16+rapid.IntRange(0, 63).Draw(r, "at"), 1, func(int) byte { return 0x5A })
	}
}

func (w *wound) fill(at, n int, with func(int) byte) {
	n = min(n, len(w.file)-at)
	if n <= 0 {
		return
	}
	for i := range n {
		w.file[at+i] = with(i)
	}
	w.hurt = append(w.hurt, span{at, at + n})
}

// damageChecks, in the environment, is how many files are damaged.
const damageChecks = "STORE_TEST_DAMAGES"

// Whatever happens to a file, the store opens; what is intact is delivered, once and
// in order; nothing else is; and the report accounts for the rest.
func TestWhatIsReadableOfADamagedFileIsDelivered(t *testing.T) {
	limit := 30
	if text := os.Getenv(damageChecks); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	specimens := []*specimen{makeSpecimen(t, 3), makeSpecimen(t, 150)}
	for n := 0; n < limit && !t.Failed(); {
		damageMany(t, specimens, &n, limit)
	}
}

// damageMany does so as often as rapid.Check does, but not beyond limit.
func damageMany(t *testing.T, specimens []*specimen, n *int, limit int) {
	rapid.Check(t, func(r *rapid.T) {
		if *n++; *n > limit && !t.Failed() {
			return
		}
		sp := specimens[rapid.IntRange(0, len(specimens)-1).Draw(r, "specimen")]
		w := &wound{file: bytes.Clone(sp.file)}
		for range rapid.IntRange(1, 3).Draw(r, "wounds") {
			sp.inflict(r, w)
		}
		sp.check(t, r, w)
	})
}

func (sp *specimen) lay(t *testing.T, file []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), file, 0o600); err != nil {
		t.Fatal(err)
	}
	// The witness must know that it is in its place, or the copy alone is reason enough.
	var w witness
	first, _ := parseTestimony(sp.witness)
	second, _ := parseTestimony(sp.witness[slotGap:])
	if second.count > first.count {
		first = second
	}
	if err := errors.Join(w.make(dir, first, syncDir), w.close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (sp *specimen) check(t *testing.T, r *rapid.T, w *wound) {
	dir := sp.lay(t, w.file)
	defer os.RemoveAll(dir)
	s, err := Open(dir, specimenConfig, silent())
	if err != nil {
		r.Fatal(err)
	}
	defer s.Close()
	salvaged := s.Epoch() != sp.epoch
	nameless := false
	if salvaged {
		nameless = sp.checkReport(r, dir)
	}
	sp.checkLetters(r, s)
	channel, err := s.Channel(ChannelKey{Sender: "peer", Epoch: 7, Channel: "main"})
	if err != nil {
		r.Fatal(err)
	}
	if channel.Safe() > sp.channel {
		r.Fatalf("the channel's number is %d, and %d was the last", channel.Safe(), sp.channel)
	}
	got := sp.readAll(r, s, w)
	for i := range sp.records {
		rec := &sp.records[i]
		if rec.delivered || got[recordID{rec.device, rec.seq}] {
			continue
		}
		// Where a segment is damaged twice, nobody can tell how many records there were
		// in between; where it has got another's page, nor which are its own.
		hits := 0
		for _, s := range w.hurt {
			if s.meets(rec.segment) {
				hits++
			}
		}
		if !w.hit(rec.frame) && !w.hit(rec.frames) && !nameless && hits < 2 && (hits == 0 || !w.swapped) {
			r.Fatalf("record %d of %s is intact and was not delivered: position %d, %+v, %+v, %+v", rec.seq, rec.device, i+1, rec.segment, rec.frames, rec.frame)
		}
	}
	if err := s.Close(); err != nil {
		r.Fatal(err)
	}
	again, err := OpenIntact(dir, specimenConfig, silent())
	if err != nil {
		r.Fatalf("the second time: %v", err)
	}
	if again.Epoch() != s.Epoch() {
		r.Fatalf("the second time there is another epoch: %v", again.Stats().Notices)
	}
	again.Close()
}

type recordID struct {
	device string
	seq    uint64
}

// readAll reads everything, and checks each item against the specimen.
func (sp *specimen) readAll(r *rapid.T, s *Store, w *wound) map[recordID]bool {
	c, err := s.Cursor(CursorConfig{Name: "c"})
	if err != nil {
		r.Fatal(err)
	}
	byID := make(map[recordID]*specimenRecord)
	for i := range sp.records {
		byID[recordID{sp.records[i].device, sp.records[i].seq}] = &sp.records[i]
	}
	got := make(map[recordID]bool)
	last := make(map[string]uint64)
	var gaps []Item
	position := uint64(0)
	for {
		ctx, cancel := context.WithCancel(context.Background())
		if s.Stats().Cursors[0].Lag == 0 || c.atEnd() {
			cancel()
		}
		items, err := c.Read(ctx, nil, 1000, 1<<30)
		cancel()
		if err != nil {
			break
		}
		for _, item := range items {
			key := item.Source.Key()
			if item.Position <= position || key.Epoch != sp.epoch {
				r.Fatalf("%+v of %+v behind position %d", item, key, position)
			}
			position = item.Position
			if item.Gap != nil {
				gaps = append(gaps, item)
				continue
			}
			id := recordID{key.Device, item.Seq}
			if rec := byID[id]; rec == nil || !bytes.Equal(rec.body, item.Body) {
				r.Fatalf("record %+v was never stored", id)
			}
			if !w.swapped && (got[id] || item.Seq <= last[key.Device]) {
				r.Fatalf("record %+v comes again, or behind %d", id, last[key.Device])
			}
			got[id], last[key.Device] = true, item.Seq
		}
	}
	for _, item := range gaps {
		if p := item.Position; p <= sp.end && w.hit(sp.records[p-1].frame) {
			continue // it stands for a damaged record, and whose that was is a guess
		}
		device := item.Source.Key().Device
		for seq := item.Gap.From; seq <= item.Gap.To; seq++ {
			if id := (recordID{device, seq}); !w.swapped && (got[id] || byID[id] == nil) {
				r.Fatalf("%+v is announced as missing: %+v", id, item.Gap)
			}
		}
	}
	return got
}

// atEnd tells whether nothing is left to read.
func (c *Cursor) atEnd() bool {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return c.read >= c.store.end
}

func (sp *specimen) checkLetters(r *rapid.T, s *Store) {
	letters, err := s.Mailbox().All()
	if err != nil {
		r.Fatal(err)
	}
	for _, l := range letters {
		if !l.Damaged && sp.letters[l.Key] != string(l.Value) {
			r.Fatalf("letter %q is %q, it was %q", l.Key, l.Value, sp.letters[l.Key])
		}
	}
}

func (sp *specimen) checkReport(r *rapid.T, dir string) (nameless bool) {
	list, err := Aside(dir)
	if err != nil || len(list) > 1 {
		r.Fatalf("%v, %+v", err, list)
	}
	if len(list) == 0 || list[0].Report == "" {
		return false // there was nothing to be saved
	}
	b, err := os.ReadFile(filepath.Join(dir, list[0].Report))
	if err != nil {
		r.Fatal(err)
	}
	var report Report
	if err := json.Unmarshal(b, &report); err != nil {
		r.Fatal(err)
	}
	wanted := uint64(0)
	for i := range sp.records {
		if !sp.records[i].delivered {
			wanted++
		}
	}
	if told := report.Saved + report.Bad + report.Missing + report.Behind + report.Nameless + report.Before; told < wanted {
		r.Fatalf("%d records were to be delivered, and the report tells of %d: %s", wanted, told, b)
	}
	return report.Nameless > 0
}

func TestACommitThatAFlippedBitHidesIsTakenOverFromItsPages(t *testing.T) {
	sp := makeSpecimen(t, 3)
	first, err1 := readMeta(bytes.NewReader(sp.file), 0)
	second, err2 := readMeta(bytes.NewReader(sp.file), int64(sp.page))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	at := 0
	if second.txid > first.txid {
		at = sp.page
	}
	file := bytes.Clone(sp.file)
	file[at+pageHeader+49] ^= 0x10 // in the transaction's id
	dir := sp.lay(t, file)
	s, err := Open(dir, specimenConfig, silent())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Epoch() == sp.epoch || !strings.Contains(s.Stats().Epoch.Reason, "commits are gone") {
		t.Errorf("%+v", s.Stats())
	}
	if st := s.Stats(); len(st.Aside) != 1 || len(st.Notices) != 2 {
		t.Errorf("%+v", st)
	}
	got := 0
	c, err := s.Cursor(CursorConfig{Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	for !c.atEnd() {
		items, err := c.Read(t.Context(), nil, 1000, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		got += len(items)
		for _, item := range items {
			if item.Gap != nil {
				t.Errorf("%+v", item.Gap)
			}
		}
	}
	wanted := 0
	for i := range sp.records {
		if !sp.records[i].delivered {
			wanted++
		}
	}
	if got != wanted {
		t.Errorf("%d records were delivered, not %d", got, wanted)
	}
}
