package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/store"
)

// image opens what a bed has left.
func image(t *testing.T, dir string) *store.Image {
	t.Helper()
	i, err := store.OpenImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return i
}

// minute commits a record of a device that was made so many minutes after 1970.
func (b *bed) minute(device string, n int) {
	b.Helper()
	body := fmt.Sprintf("%s at minute %d", device, n)
	b.commit(store.Batch{Entries: []store.Entry{{Source: b.source(device), Time: time.Unix(60*int64(n), 0), Body: []byte(body)}}})
}

// findings checks an image and returns what was found, as text.
func findings(t *testing.T, dir string) (list []string, s store.Survey) {
	t.Helper()
	done := int64(0)
	s, err := image(t, dir).Check(t.Context(), func(f store.Finding) {
		at := ""
		if f.Source.Device != "" {
			at = fmt.Sprintf(" %s#%d-%d from minute %d to %d", f.Source.Device, f.FirstSeq, f.LastSeq, f.After.Unix()/60, max(f.Before.Unix(), 0)/60)
		}
		list = append(list, fmt.Sprintf("%s %s%s n=%d @%d-%d", f.Kind, f.Name, at, f.Records, f.From, f.To))
	}, func(now, total int64) {
		if now < done || now > total {
			t.Errorf("progress went from %d to %d of %d", done, now, total)
		}
		done = now
	})
	if err != nil {
		t.Fatal(err)
	}
	return list, s
}

func wantFindings(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got, _ := findings(t, dir); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAnImageShowsAStoppedQueueAndChangesNothing(t *testing.T) {
	b := newBed(t, store.Config{})
	c := b.cursor(store.CursorConfig{})
	b.start()
	for i := 1; i <= 10; i++ {
		b.minute("a", i)
		b.minute("b", i)
	}
	_, last := b.read(c, 5)
	c.Ack(last)
	b.stop()
	before := contents(t, b.dir)
	i := image(t, b.dir)
	st := i.Stats()
	if st.Records != 15 || len(st.Cursors) != 1 || st.Cursors[0].Lag != 15 || st.Cursors[0].LagBytes == 0 || i.Epoch() != b.Epoch() {
		t.Errorf("%+v", st)
	}
	n := 0
	for item, err := range i.Browse(t.Context(), store.Query{Since: time.Unix(60*9, 0)}) {
		if err != nil || item.Time.Unix() < 60*9 {
			t.Errorf("%v %v", item.Time, err)
		}
		n++
	}
	tally, err := i.Count(t.Context(), 0, 0)
	if err != nil || n != 4 || len(tally.Sources) != 2 || tally.Next != 21 {
		t.Errorf("%d records, %+v, %v", n, tally, err)
	}
	if a := tally.Sources[0]; a.Key.Device != "b" || a.Records != 8 || a.FirstSeq != 3 || a.LastSeq != 10 || a.LastTime.Unix() != 600 {
		t.Errorf("%+v", a)
	}
	if found, survey := findings(t, b.dir); len(found) != 0 || survey.Records != 15 || survey.Devices != 2 || survey.Cursors != 1 {
		t.Errorf("%v %+v", found, survey)
	}
	if after := contents(t, b.dir); after != before {
		t.Error("the directory has changed")
	}
}

// contents of all files of a directory, with their names and times.
func contents(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		info, infoErr := e.Info()
		if err != nil || infoErr != nil {
			t.Fatal(err, infoErr)
		}
		fmt.Fprintln(&text, e.Name(), info.ModTime(), len(b))
		text.Write(b)
	}
	return text.String()
}

func TestACountGoesOnWhereTheOneBeforeHasStopped(t *testing.T) {
	b := newBed(t, store.Config{})
	b.cursor(store.CursorConfig{})
	b.start()
	for i := range 50 {
		b.minute("a", i)
	}
	records, parts := uint64(0), 0
	for from := uint64(0); ; parts++ {
		tally, err := b.Count(t.Context(), from, 300)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range tally.Sources {
			records += s.Records
		}
		if from = tally.Next; from > tally.End {
			break
		}
	}
	if records != 50 || parts < 4 {
		t.Errorf("%d records in %d parts", records, parts)
	}
}

func TestAQueueInUseIsNoImage(t *testing.T) {
	b := newBed(t, store.Config{})
	if _, err := store.OpenImage(b.dir); !errors.Is(err, store.ErrLocked) {
		t.Errorf("the error is %v", err)
	}
	b.stop()
	one, two := image(t, b.dir), image(t, b.dir) // many may look at once
	if _, err := store.Open(b.dir, b.cfg, quiet()); !errors.Is(err, store.ErrLocked) {
		t.Errorf("the error is %v", err)
	}
	one.Close()
	two.Close()
	b.open()
}

func TestWhatIsNoQueueMakesNoImage(t *testing.T) {
	if _, err := store.OpenImage(t.TempDir()); !errors.Is(err, store.ErrNoQueue) {
		t.Errorf("the error is %v", err)
	}
	if _, err := store.OpenImage("/nowhere"); !errors.Is(err, store.ErrNoQueue) {
		t.Errorf("the error is %v", err)
	}
	dir, path := filled(t)
	change(t, path, func(b []byte) []byte { return b[:20<<10] })
	if _, err := store.OpenImage(dir); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("the error is %v", err)
	}
	change(t, path, func([]byte) []byte { return []byte("a text") })
	if _, err := store.OpenImage(dir); !errors.Is(err, store.ErrForeign) {
		t.Errorf("the error is %v", err)
	}
}

func TestACheckNamesTheDeviceAndTheTimeOfWhatCannotBeRead(t *testing.T) {
	b := newBed(t, store.Config{})
	b.cursor(store.CursorConfig{})
	b.start()
	for i := 1; i <= 6; i++ {
		b.minute("a", i)
		b.minute("b", i)
	}
	b.stop()
	change(t, filepath.Join(b.dir, store.FileName), func(all []byte) []byte {
		for _, body := range []string{"a at minute 3", "b at minute 3", "b at minute 6"} {
			all = bytes.ReplaceAll(all, []byte(body), []byte(strings.ToUpper(body)))
		}
		return all
	})
	wantFindings(t, b.dir,
		"unreadable  n=2 @5-6",
		"unreadable  a#3-3 from minute 2 to 4 n=1 @0-0",
		"unreadable  b#3-3 from minute 2 to 4 n=1 @0-0",
		"unreadable  n=1 @12-12",
		"unreadable  b#6-6 from minute 5 to 0 n=1 @0-0",
	)
}

func TestWhatWasDroppedAndAnnouncedIsNoFinding(t *testing.T) {
	b := newBed(t, store.Config{MaxSize: 256 << 10, WhenFull: store.DropOldest})
	b.cursor(store.CursorConfig{})
	b.start()
	for range 40 {
		b.add(b.source("a"), slices.Repeat([]string{strings.Repeat("x", 2000)}, 10)...)
	}
	b.stop()
	if found, survey := findings(t, b.dir); len(found) != 0 || survey.Records > 300 {
		t.Errorf("%v %+v", found, survey)
	}
}

func TestAFileDamagedAnywhereIsRefusedOrShownWithoutAFault(t *testing.T) {
	b := newBed(t, store.Config{})
	b.cursor(store.CursorConfig{})
	b.start()
	for i := range 20 {
		b.minute("a", i)
		b.add(b.source("b"), strings.Repeat("x", 100*i), "y")
	}
	b.stop()
	path := filepath.Join(b.dir, store.FileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(whole, "\x00"))
	whole = whole[:min(len(whole), used+256<<10)] // the rest is room
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	wantFindings(t, b.dir)
	rapid.Check(t, func(t *rapid.T) {
		spoiled := bytes.Clone(whole)
		for range rapid.IntRange(1, 4).Draw(t, "bytes") {
			spoiled[rapid.IntRange(0, used-1).Draw(t, "at")] ^= rapid.Byte().Draw(t, "by")
		}
		if err := os.WriteFile(path, spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		i, err := store.OpenImage(b.dir)
		if err != nil {
			return // it says so
		}
		defer i.Close()
		found := 0
		survey, err := i.Check(context.Background(), func(store.Finding) { found++ }, nil)
		if err == nil && survey.Records != 60 && found == 0 {
			t.Fatalf("%d records and no finding", survey.Records)
		}
		for _, err := range i.Browse(context.Background(), store.Query{}) {
			if err != nil {
				return
			}
		}
		_, _ = i.Count(context.Background(), 0, 0)
		i.Stats()
	})
}
