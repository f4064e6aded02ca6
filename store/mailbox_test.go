package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/store"
)

// mail reads the mailbox.
func (b *bed) mail() map[string]string {
	b.Helper()
	letters, err := b.Mailbox().All()
	if err != nil {
		b.Fatal(err)
	}
	m := make(map[string]string)
	for _, l := range letters {
		if l.Damaged {
			b.Errorf("%s is damaged", l.Key)
		}
		m[l.Key] = string(l.Value)
		if one, found, err := b.Mailbox().Get(l.Key); err != nil || !found || one.Key != l.Key || !bytes.Equal(one.Value, l.Value) {
			b.Errorf("%s alone is %q, %v %v", l.Key, one.Value, found, err)
		}
	}
	if _, found, err := b.Mailbox().Get("no such key"); found || err != nil {
		b.Errorf("what was never put is found: %v %v", found, err)
	}
	return m
}

func (b *bed) put(key, value string) {
	b.Helper()
	commit, err := b.Mailbox().Put(key, []byte(value))
	if err != nil {
		b.Fatal(err)
	}
	if err := commit.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func TestAMailboxIsAMapThatSurvives(t *testing.T) {
	b := newBed(t, store.Config{MaxSize: 8 << 20, CommitDelay: time.Hour})
	b.start()
	want := make(map[string]string)
	rapid.Check(t, func(r *rapid.T) {
		for range rapid.IntRange(1, 10).Draw(r, "changes") {
			key := rapid.SampledFrom([]string{"a", "b", "c", strings.Repeat("d", 255)}).Draw(r, "key")
			value := strings.Repeat(rapid.StringN(1, 4, -1).Draw(r, "value"), rapid.SampledFrom([]int{0, 1, 40, 2000}).Draw(r, "times"))
			var err error
			switch rapid.SampledFrom([]string{"put", "put later", "delete", "append"}).Draw(r, "change") {
			case "put":
				_, err = b.Mailbox().Put(key, []byte(value))
				want[key] = value
			case "put later":
				_, err = b.Mailbox().PutLater(key, []byte(value))
				want[key] = value
			case "delete":
				_, err = b.Mailbox().Delete(key)
				delete(want, key)
			case "append":
				b.add(b.source("d"), "record")
			}
			if err != nil {
				r.Fatal(err)
			}
		}
		if rapid.IntRange(0, 9).Draw(r, "reopen") == 0 {
			b.reopen()
			b.start()
		} else if err := b.Flush(t.Context()); err != nil {
			r.Fatal(err)
		}
		if got := b.mail(); !maps.Equal(got, want) {
			r.Fatalf("%q, want %q", got, want)
		}
	})
}

func TestMailGoesThroughWhenTheQueueIsFull(t *testing.T) {
	b := newBed(t, small(store.Block))
	b.cursor(store.CursorConfig{})
	b.start()
	batch := store.Batch{Entries: []store.Entry{{Source: b.source("d"), Body: []byte(kilobyte(0))}}, NoWait: true}
	b.until("the queue being full", func() bool {
		_, err := b.Append(t.Context(), batch)
		return err != nil && b.Stats().State == store.StateFull
	})
	b.put("key", "value")
	if got := b.mail()["key"]; got != "value" {
		t.Errorf("%q", got)
	}
}

func TestAMailboxWithoutHurryIsCommittedAfterTheDelay(t *testing.T) {
	b := newBed(t, store.Config{CommitDelay: 30 * time.Millisecond})
	b.start()
	for _, step := range []func() (*store.Commit, error){
		func() (*store.Commit, error) { return b.Mailbox().PutLater("key", []byte("value")) },
		func() (*store.Commit, error) { return b.Mailbox().Delete("key") },
	} {
		began := time.Now()
		commit, err := step()
		if err != nil {
			t.Fatal(err)
		}
		if err := commit.Wait(t.Context()); err != nil || time.Since(began) < b.cfg.CommitDelay {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	}
	if got := b.mail(); len(got) != 0 {
		t.Error(got)
	}
}

func TestAMailboxSaysWhenItIsFullAndTakesMoreAfterADelete(t *testing.T) {
	b := newBed(t, store.Config{MaxSize: 1 << 20})
	b.start()
	m := b.Mailbox()
	size := int(m.Size())
	if size != 256<<10 {
		t.Fatal(size)
	}
	for _, key := range []string{"", strings.Repeat("k", 256)} {
		if _, err := m.Put(key, nil); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("key of %d bytes: %v", len(key), err)
		}
	}
	if _, err := m.Put("k", make([]byte, size/4)); !errors.Is(err, store.ErrTooLarge) {
		t.Error(err)
	}
	for _, reopened := range []bool{false, true} {
		for i := range 4 {
			if _, err := m.Put(fmt.Sprint(i), make([]byte, size/4-1)); err != nil {
				t.Fatal(i, err)
			}
		}
		if _, err := m.Put("more", nil); !errors.Is(err, store.ErrMailboxFull) {
			t.Errorf("reopened: %v, %v", reopened, err)
		}
		if _, err := m.Put("0", nil); err != nil {
			t.Errorf("a value that shrinks: %v", err)
		}
		if _, err := m.Delete("0"); err != nil {
			t.Error(err)
		}
		if _, err := m.Put("more", make([]byte, 100)); err != nil {
			t.Error(err)
		}
		if _, err := m.Delete("more"); err != nil {
			t.Error(err)
		}
		b.reopen()
		b.start()
		m = b.Mailbox()
	}
}

func TestADamagedLetterIsToldAndTheOthersAreRead(t *testing.T) {
	b := newBed(t, store.Config{})
	b.start()
	for i := range 20 {
		b.put(fmt.Sprint("key-", i), fmt.Sprint("value-", i, strings.Repeat("x", 500)))
	}
	b.stop()
	path := filepath.Join(b.dir, store.FileName)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(file, []byte("value-7x")) {
		t.Fatal("the value is not in the file")
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(file, []byte("value-7x"), []byte("value-7y")), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.start()
	letters, err := b.Mailbox().All()
	if err != nil || len(letters) != 20 {
		t.Fatal(len(letters), err)
	}
	for _, l := range letters {
		if l.Damaged != (l.Key == "key-7") || l.Damaged != (l.Value == nil) {
			t.Errorf("%s: damaged %v, %.10s", l.Key, l.Damaged, l.Value)
		}
	}
	b.put("key-7", "as new")
	if got := b.mail()["key-7"]; got != "as new" {
		t.Error(got)
	}
}

func TestAClosedStoreTakesNoMail(t *testing.T) {
	b := newBed(t, store.Config{})
	b.start()
	b.stop()
	if _, err := b.Mailbox().Put("key", nil); !errors.Is(err, store.ErrClosed) {
		t.Error(err)
	}
	if _, err := b.Mailbox().Delete("key"); !errors.Is(err, store.ErrClosed) {
		t.Error(err)
	}
}

func TestAStoreWithoutMailHasNoMailbox(t *testing.T) {
	b := newBed(t, store.Config{})
	b.start()
	b.add(b.source("d"), "record")
	b.stop()
	file, err := os.ReadFile(filepath.Join(b.dir, store.FileName))
	if err != nil || bytes.Contains(file, []byte("now.mailbox")) {
		t.Error("the bucket is there before the first Put", err)
	}
}
